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

GROUP, GROUP_CPU = 8, 2
"""Texts that go through a language model together where it reads facts: little padding, and the activations
and logits of few texts in memory. A CPU is as fast with two."""
MAX_TOKENS_CPU = 512
"""Tokens of a group on a CPU, padding included; the texts of a longer group go one by one."""
Group = Callable[[Tensor, Tensor], Tensor]
"""Rows (k,) of a batch and their soft tokens (k, soft, width) → their summed NLL, a scalar."""


def length_groups(lengths: Tensor, fixed: bool) -> list[Tensor]:
    """Rows of a batch of texts of these `lengths` (batch,) in groups of similar length, the longest first, so
    that later groups fit into the memory of earlier ones.

    `fixed`: in a number that depends on the batch's size alone, because under ZeRO-3 every rank must take
    every pass.
    """
    order = lengths.argsort(stable=True, descending=True)
    if lengths.device.type != "cpu":
        return list(order.split(GROUP))
    groups = list(order.split(GROUP_CPU))
    if fixed:
        return groups
    sizes = [
        1 if len(rows) * int(lengths[rows[0]]) > MAX_TOKENS_CPU else len(rows) for rows in groups
    ]
    return [part for rows, size in zip(groups, sizes, strict=True) for part in rows.split(size)]


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
