"""Rows of all ranks, with gradient: what makes a contrastive loss on many devices equal one on one."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def world() -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_rows(rows: Tensor) -> Tensor:
    """All ranks' `rows` (n, …), same n on each, in rank order: (ranks · n, …).

    Gradients flow back to the rank each row came from; dropping them would divide the gradient by
    the number of ranks (a fault found in released recommenders).
    """
    _, ranks = world()
    if ranks == 1:
        return rows
    if rows.requires_grad:
        return torch.cat(list(all_gather(rows.contiguous())), dim=0)
    parts = [torch.empty_like(rows) for _ in range(ranks)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts, dim=0)


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor without gradient over all ranks."""
    if world()[1] > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
