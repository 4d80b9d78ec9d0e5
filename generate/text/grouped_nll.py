"""The summed NLL of groups of texts, whose gradient is taken group by group in the forward pass.

A language model's activations are the most of its training's memory. Here those of one group exist at a time,
and nothing is computed twice: each group's gradient is taken as soon as its loss is known, and the backward
pass only scales the sum. So each weight gets its gradient once, as DDP and ZeRO expect.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from catalog.memory import release_freed

Group = Callable[[Tensor, Tensor], Tensor]
"""Rows (k,) of a batch and their soft tokens (k, soft, width) → their summed NLL, a scalar."""


def grouped_nll(
    nll: Group, soft: Tensor, groups: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> Tensor:
    """The sum of `nll` over `groups` of rows: a scalar, with the gradients of `soft` (batch, soft, width) and
    of the trained `parameters`."""
    trained = [weight for weight in parameters if weight.requires_grad]
    total = _GroupedNLL.apply(nll, list(groups), soft, *trained)
    assert isinstance(total, Tensor)
    return total


class _GroupedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, nll: Group, groups: list[Tensor], soft: Tensor, *weights: Tensor
    ) -> Tensor:
        total = soft.new_zeros((), dtype=torch.float32)
        of_soft = torch.zeros_like(soft)
        of_weights: list[Tensor | None] = [None] * len(weights)
        for rows in groups:
            with torch.enable_grad():
                own = soft.detach()[rows].requires_grad_()
                loss = nll(rows, own)
                first, *others = torch.autograd.grad(loss, [own, *weights], allow_unused=True)
            total += loss.detach()
            if first is not None:
                of_soft[rows] = first
            for place, gradient in enumerate(others):
                known = of_weights[place]
                if known is None:
                    of_weights[place] = gradient
                elif gradient is not None:
                    known += gradient
        ctx.gradients = (of_soft, *of_weights)
        if (
            soft.device.type == "cpu"
        ):  # groups of other lengths would find little that fits in between
            release_freed()
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (scale,) = upstream
        gradients = (None if one is None else one * scale.to(one.dtype) for one in ctx.gradients)
        return None, None, *gradients
