"""Exact softmax over the whole catalog, never holding the [positions × items] matrix."""

from typing import Any

import torch
from torch import Tensor


class _CatalogCrossEntropy(torch.autograd.Function):
    """Takes the gradient while it has each chunk's scores, so that no chunk is scored twice."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        items: Tensor,
        targets: Tensor,
        scale: Tensor,
        excluded: Tensor | None,
        chunk: int,
    ) -> Tensor:
        count = max(1, states.shape[0])
        total = states.new_zeros(())
        grad_states = torch.empty_like(states)
        grad_items = torch.zeros_like(items)
        grad_scale = torch.zeros_like(scale)
        for start in range(0, states.shape[0], chunk):
            part = slice(start, start + chunk)
            cosines = states[part] @ items.T  # (chunk, num_items)
            scores = cosines * scale
            if excluded is not None:
                scores.masked_fill_(excluded, float("-inf"))
            normaliser = scores.logsumexp(dim=1, keepdim=True)
            wanted = targets[part].unsqueeze(1)
            total += (normaliser - scores.gather(1, wanted)).sum()
            slope = scores.sub_(normaliser).exp_()  # softmax, then minus one at the target
            slope.scatter_add_(1, wanted, -torch.ones_like(wanted, dtype=slope.dtype))
            grad_scale += (slope * cosines).sum()
            grad_states[part] = slope @ items * scale
            grad_items.addmm_(slope.T, states[part], alpha=float(scale))
        ctx.save_for_backward(grad_states / count, grad_items / count, grad_scale / count)
        return total / count

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_items, grad_scale = ctx.saved_tensors
        (outer,) = upstream
        return outer * grad_states, outer * grad_items, None, outer * grad_scale, None, None


def catalog_cross_entropy(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    scale: Tensor,
    excluded: Tensor | None = None,
    chunk: int = 512,
) -> Tensor:
    """Mean of −log softmax(scale · states @ items.T)[target].

    `states` (positions, d), `items` (num_items, d), `targets` int (positions,), `scale` (1,);
    `excluded` bool (num_items,): items that are no candidates, and no targets either.
    Memory beyond the gradients: chunk × num_items scores.
    """
    return _CatalogCrossEntropy.apply(states, items, targets, scale, excluded, chunk)
