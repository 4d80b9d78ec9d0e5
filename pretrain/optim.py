"""The optimiser every stage uses: AdamW, warm-up, cosine decay."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pretrain.config import OptimizerConfig


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that can be told to leave a step out: weights, moments and counts stay as they are.

    One kernel for all weights where they lie on a GPU.
    """

    leave_out = False

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        on_gpu = all(p.is_cuda for group in groups for p in group["params"])
        super().__init__(groups, lr=lr, fused=on_gpu or None)
        # A fused step could undo fp16's loss scale itself, and Lightning then refuses to clip.
        self._step_supports_amp_scaling = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:  # the forward and backward pass, after which it is known
            with torch.enable_grad():
                loss = closure()
        if not self.leave_out:
            super().step()
        return loss


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig,
    total_steps: int,
    slow: Iterable[nn.Parameter] = (),
    slow_rate: float = 1.0,
) -> dict[str, Any]:
    """What `LightningModule.configure_optimizers` returns.

    Weight decay touches matrices alone; the rate rises over the first `warmup_share` of the steps
    and falls to 0 along a cosine. Those of `parameters` that are in `slow` learn at `slow_rate` of it.
    """
    parameters = list(parameters)
    held_back = {id(p) for p in slow}
    groups = []
    for is_slow, rate_share in ((False, 1.0), (True, slow_rate)):
        trained = [p for p in parameters if p.requires_grad and (id(p) in held_back) == is_slow]
        settings = {"lr": config.learning_rate * rate_share}
        matrices = [p for p in trained if p.dim() >= 2]
        others = [p for p in trained if p.dim() < 2]
        groups.append({**settings, "params": matrices, "weight_decay": config.weight_decay})
        groups.append({**settings, "params": others, "weight_decay": 0.0})
    optimizer = GuardedAdamW([g for g in groups if g["params"]], lr=config.learning_rate)
    warmup = max(1, round(config.warmup_share * total_steps))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
