"""InfoNCE, symmetric InfoNCE and the sigmoid loss, exact over all ranks.

Scores are computed in chunks; the [queries × keys] matrix is never in memory.

Gradients are computed in the forward pass, chunk by chunk; further memory is a few chunks × all keys, and
there is no second derivative. All losses follow the convention of `Objective`: the mean over ranks of the
returned values is the loss of the whole batch. The gradient is that of this mean, if all ranks weight the
loss equally: it includes the terms of other ranks' losses in which a rank's vectors occur.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretrain.distributed import Ring, gather_rows, sum_over_ranks, world

CHUNK = 256
"""Queries scored at once."""
STEEPEST_SHARED = 40.0
"""Above this scale exp(scale · (cos − 1)) leaves float32's range, and the two directions share no sum."""


def info_nce(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    counts: Tensor,
    *,
    query_ids: Tensor,
    key_ids: Tensor,
    scale: Tensor,
    key_valid: Tensor | None = None,
    key_bias: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """InfoNCE of this rank's queries against the keys of all ranks (van den Oord et al., 2018).

    `queries` (n, d); `keys` (N, d) gathered; `positives` int (n,): the key of each query; `counts` bool (n,):
    the queries that count; `query_ids` (n,) or (n, k) and `key_ids` (N,): hard negative masking, a key with
    one of the query's ids that is not its positive is no negative and is masked with −inf (setting it to 0
    would still add exp(0)); `key_valid` bool (N,), true for every positive that counts; `key_bias` (N,),
    without gradient, is added to the logits of negatives, but not of the positive, which is in its query's
    softmax whatever is sampled.
    Returns the sum over counted queries × ranks / number counted on all ranks.
    """
    bias = _full(queries.new_zeros(len(keys)) if key_bias is None else key_bias)
    if key_valid is not None:
        bias = bias.masked_fill(~key_valid, float("-inf"))
    rows = counts.nonzero().squeeze(1)
    total = sum_over_ranks(counts.sum()).clamp(min=1)
    summed = _InfoNCE.apply(
        queries[rows], keys, scale, bias, positives[rows], query_ids[rows], key_ids, chunk
    )
    return summed * world()[1] / total


class _InfoNCE(torch.autograd.Function):
    """Sum of −log softmax(scale · queries @ keys.T + bias)[positive] over queries; `bias` (N,) is added to
    negatives alone."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        scale: Tensor,
        bias: Tensor,
        positives: Tensor,
        query_ids: Tensor,
        key_ids: Tensor,
        chunk: int,
    ) -> Tensor:
        with torch.autocast(queries.device.type, enabled=False):
            q, k = _full(queries), _full(keys)
            factor, bias = scale.item(), bias.to(q.dtype)
            sorted_ids, order = key_ids.sort()
            loss = q.new_zeros(())
            grad_q, grad_k = torch.empty_like(q), torch.zeros_like(k)
            scores = q.new_empty(min(chunk, len(q)), len(k))
            for start in range(0, len(q), chunk):
                part = slice(start, min(start + chunk, len(q)))
                s = scores[: part.stop - start]
                positive = positives[part].unsqueeze(1)
                torch.addmm(bias, q[part], k.T, alpha=factor, out=s)
                mine = s.gather(1, positive) - bias[positive]
                for ids in query_ids[part].view(len(s), -1).unbind(1):
                    s[_same_ids(ids, sorted_ids, order)] = float("-inf")
                s.scatter_(1, positive, mine)
                highest = s.amax(dim=1, keepdim=True)
                normaliser = s.sub_(highest).exp_().sum(dim=1, keepdim=True)
                loss += (normaliser.log() + (highest - mine)).sum()
                s.div_(normaliser).scatter_add_(1, positive, mine.new_full(mine.shape, -1.0))
                torch.mm(s, k, out=grad_q[part])
                grad_k.addmm_(s.T, q[part], alpha=factor)
            grad_scale = (grad_q * q).sum().expand_as(scale)
            _keep(ctx, (queries, keys, scale), (grad_q.mul_(factor), grad_k, grad_scale))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *_kept(ctx, *upstream), None, None, None, None, None


def _keep(ctx: Any, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> None:
    """Saves gradients for the backward pass, in full precision, since a loss scale may follow."""
    ctx.dtypes = [x.dtype for x in inputs]
    ctx.save_for_backward(*grads)


def _kept(ctx: Any, outer: Tensor) -> list[Tensor]:
    pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
    return [(outer * grad).to(dtype) for grad, dtype in pairs]


def _full(x: Tensor) -> Tensor:
    """`x` in at least float32: half precision loses the small terms of a sum over thousands."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _same_ids(ids: Tensor, sorted_ids: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) where `ids` (n,) equals the ids that `order` sorts to `sorted_ids` (N,)."""
    ids = ids.contiguous()
    first = torch.searchsorted(sorted_ids, ids)
    number = torch.searchsorted(sorted_ids, ids, right=True) - first
    rows = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), number)
    places = torch.arange(len(rows), device=ids.device) - (number.cumsum(0) - number)[rows]
    return rows, order[first[rows] + places]


def symmetric_info_nce(
    left: Tensor, right: Tensor, scale: Tensor, chosen: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Symmetric InfoNCE (CLIP) between `left` and `right` (n, d), unit length, of all ranks.

    Row i of both belongs to one item; `chosen` bool (n,): the rows of this rank that count, each distinct
    item once in the whole batch. Both directions share one matrix of cosines: a rank scores its rows
    against all columns, and the columns' sums are added over ranks. With a `scale` (equal on all ranks)
    that is too large for that, the two directions are computed one after the other.
    """
    rank, ranks = world()
    everyone = gather_rows(chosen)
    total = everyone.sum().clamp(min=1)
    keys = gather_rows(right)
    if scale.item() > STEEPEST_SHARED:
        ids = torch.arange(len(keys), device=keys.device)
        own = ids[rank * len(left) : (rank + 1) * len(left)]
        settings: dict[str, Any] = {
            "query_ids": own,
            "key_ids": ids,
            "key_valid": everyone,
            "scale": scale,
            "chunk": chunk,
        }
        there = info_nce(left, keys, own, chosen, **settings)
        back = info_nce(right, gather_rows(left), own, chosen, **settings)
        return (there + back) / 2
    mine = everyone.cumsum(0)[rank * len(left) : (rank + 1) * len(left)][chosen] - 1
    summed = _SymmetricInfoNCE.apply(left[chosen], keys[everyone], scale, mine, chunk)
    return summed * ranks / (2 * total)


class _SymmetricInfoNCE(torch.autograd.Function):
    """Sum over this rank's rows of −log softmax along their rows and along their columns."""

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, own: Tensor, chunk: int
    ) -> Tensor:
        with torch.autocast(left.device.type, enabled=False):
            a, b = _full(left), _full(right)
            factor = scale.item()
            scores = a.new_empty(min(chunk, len(a)), len(b))

            def scaled_exp(start: int) -> tuple[slice, Tensor]:
                """exp(scale · (cos − 1)): at most 1, since the vectors have unit length."""
                part = slice(start, min(start + chunk, len(a)))
                s = scores[: part.stop - start]
                torch.mm(a[part], b.T, out=s)
                return part, s.sub_(1).mul_(factor).exp_()

            rows, matching, columns = a.new_empty(len(a)), a.new_empty(len(a)), a.new_zeros(len(b))
            for start in range(0, len(a), chunk):
                part, s = scaled_exp(start)
                rows[part] = s.sum(dim=1)
                columns += s.sum(dim=0)
                matching[part] = s.gather(1, own[part].unsqueeze(1)).squeeze(1)
            columns = sum_over_ranks(columns)
            losses = rows.log() + columns[own].log() - 2 * matching.log()
            grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b)
            row_shares, column_shares = rows.reciprocal_(), columns.reciprocal_()
            for start in range(0, len(a), chunk):
                part, s = scaled_exp(start)
                s.mul_(row_shares[part].unsqueeze(1) + column_shares)
                # Inside the product, where it cancels to the last bit of the product's precision.
                s.scatter_add_(1, own[part].unsqueeze(1), s.new_full((len(s), 1), -2.0))
                torch.mm(s, b, out=grad_a[part])
                grad_b.addmm_(s.T, a[part])
            grad_scale = (grad_a * a).sum().expand_as(scale)
            _keep(ctx, (left, right, scale), (grad_a.mul_(factor), grad_b.mul_(factor), grad_scale))
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *_kept(ctx, *upstream), None, None


def sigmoid_loss(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, chosen: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al., 2023, eq. 1) between `left` and `right` (n, d).

    As `symmetric_info_nce`, but every pair of items has a binary loss of its own. Without a sum over a row,
    vectors need not be gathered: they pass round the ring of ranks together with their accumulated
    gradient, and return to their own rank with all of it.
    """
    total = sum_over_ranks(chosen.sum()).clamp(min=1)
    summed = _SigmoidLoss.apply(left, right, scale, bias, chosen, chunk)
    return summed * world()[1] / total


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        scale: Tensor,
        bias: Tensor,
        chosen: Tensor,
        chunk: int,
    ) -> Tensor:
        with torch.autocast(left.device.type, enabled=False):
            a = _full(left)
            factor, offset = scale.item(), bias.item()
            rows = chosen.nonzero().squeeze(1)
            loss, grad_bias = a.new_zeros(()), a.new_zeros(())
            grad_a = torch.zeros_like(a)
            here = torch.arange(len(a), device=a.device)
            scores = a.new_empty(min(chunk, len(a)), len(a))
            # These pass round the ring: vectors, whether they count, and the accumulated gradient.
            visitors = _full(right).masked_fill(~chosen.unsqueeze(1), 0.0)
            counted = chosen.to(a.dtype)
            collected = torch.zeros_like(visitors)
            ring = Ring()
            for hop in range(ring.size):
                for start in range(0, len(rows), chunk):
                    part = rows[start : start + chunk]
                    s = scores[: len(part)]
                    torch.mm(a[part], visitors.T, out=s)
                    s.mul_(factor).add_(offset)
                    own = (here[: len(part)], part)
                    if hop == 0:  # both modalities of one item: the only positive pair
                        s[own] = -s[own]
                    # −log sigmoid(−s) = softplus(s); its slope is sigmoid(s).
                    loss += (F.softplus(s) @ counted).sum()
                    s.sigmoid_().mul_(counted)
                    if hop == 0:
                        s[own] = -s[own]
                    grad_bias += s.sum()
                    grad_a.index_add_(0, part, s @ visitors)
                    collected.addmm_(s.T, a[part])
                visitors, counted, collected = ring.pass_on(visitors, counted, collected)
            grad_scale = (grad_a[rows] * a[rows]).sum().expand_as(scale)
            grads = (grad_a.mul_(factor), collected.mul_(factor), grad_scale)
            _keep(ctx, (left, right, scale, bias), (*grads, grad_bias.expand_as(bias)))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *_kept(ctx, *upstream), None, None
