"""Collectives with gradients: all-gather, all-reduce, broadcast, and a ring of ranks.

With them a contrastive loss on many devices equals that on one device.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_rows(rows: Tensor) -> Tensor:
    """All ranks' `rows` (n, …), same n on each, in rank order: (ranks · n, …).

    Gradients flow back to the rank each row came from; dropping them would divide the gradient by
    the number of ranks (a bug of released recommenders).
    """
    _, ranks = world()
    if ranks == 1:
        return rows
    return _GatherRows.apply(rows)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(world()[1])]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        """Sums the gradients of all ranks, and returns those of this rank's own rows."""
        (outer,) = upstream
        rank, ranks = world()
        shares = list(outer.contiguous().chunk(ranks))
        if outer.is_cuda:
            own = torch.empty_like(shares[rank])
            dist.reduce_scatter(own, shares)
            return own
        summed = outer.clone(memory_format=torch.contiguous_format)  # gloo cannot scatter
        dist.all_reduce(summed)
        return summed.chunk(ranks)[rank].clone()


def gather_objects(value: Any) -> list[Any]:
    """All ranks' `value`, anything that can be pickled, in rank order."""
    _, ranks = world()
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor without gradient over all ranks."""
    if world()[1] > 1:
        value = _sendable(value).clone()
        dist.all_reduce(value)
    return value


def broadcast_rows(rows: Tensor, source: int) -> None:
    """Broadcasts the `rows` of rank `source` to all ranks, in place."""
    if world()[1] == 1 or not rows.numel():
        return
    plain = rows.view(torch.uint8) if rows.dtype == torch.bool else rows  # gloo sends no booleans
    sent = _sendable(plain).contiguous()
    dist.broadcast(sent, source)
    plain.copy_(sent)


def _sendable(tensor: Tensor) -> Tensor:
    """`tensor` on the process group's device: after a fit modules are on the CPU, which NCCL cannot use."""
    return tensor.cuda() if dist.get_backend() == "nccl" and not tensor.is_cuda else tensor


class Ring:
    """Passes tensors from each rank to the next; after `size` hops they are back at their own rank."""

    def __init__(self) -> None:
        self.rank, self.size = world()

    def pass_on(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns the previous rank's tensors; shapes and types are equal on all ranks, without gradient."""
        if self.size == 1:
            return tensors
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        received = tuple(torch.empty_like(tensor) for tensor in tensors)
        behind, ahead = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        operations = []
        for tensor, room in zip(tensors, received, strict=True):
            operations.append(dist.P2POp(dist.isend, tensor, ahead))
            operations.append(dist.P2POp(dist.irecv, room, behind))
        for request in dist.batch_isend_irecv(operations):
            request.wait()
        return received
