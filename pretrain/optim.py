"""The optimiser every stage uses: AdamW, warm-up, cosine decay; layer-wise rates, moving average."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from pretrain.config import OptimizerConfig

LAYER = re.compile(r"\btowers\.(\w+)\..*?\b(?:layers?|blocks?|h)\.(\d+)\.")
"""A weight in one of a tower's numbered layers."""
EMBEDDING = re.compile(r"\btowers\.(\w+)\..*(?:embed|wte|wpe|feature_extractor|conv\d)")
"""A weight below all of them."""


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that can be told to leave a step out: weights, moments and counts stay as they are.

    With `average` it keeps a moving average of the weights (EMA) beside their moments, and puts it in
    their place when told to `finish`. Whoever shards the weights (ZeRO 1, 2, 3) gives each rank's
    optimiser its shards, so that it holds the average's, and hands round what it finds in them.

    One kernel for all weights where they lie on a GPU.
    """

    leave_out = False
    finish = False

    def __init__(self, groups: list[dict[str, Any]], lr: float, average: float = 0.0) -> None:
        on_gpu = all(p.is_cuda for group in groups for p in group["params"])
        super().__init__(groups, lr=lr, fused=on_gpu or None)
        # A fused step could undo fp16's loss scale itself, and Lightning then refuses to clip.
        self._step_supports_amp_scaling = False
        self.decay = average

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:  # the forward and backward pass, after which it is known
            with torch.enable_grad():
                loss = closure()
        if not self.leave_out:
            super().step()
        if self.decay:
            self._average()
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "step" not in state:
                    continue
                if "average" not in state:
                    state["average"] = parameter.detach().clone()
                if not self.leave_out:
                    steps = float(state["step"])
                    # A young average would lean on where training began.
                    decay = min(self.decay, (1 + steps) / (10 + steps))
                    state["average"].lerp_(parameter, 1 - decay)
                if self.finish:
                    parameter.copy_(state["average"])


def innermost(optimizer: Any) -> Any:
    """The optimiser inside Lightning's and DeepSpeed's wrappings."""
    while not isinstance(optimizer, GuardedAdamW) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig,
    total_steps: int,
    rates: Mapping[nn.Parameter, float] | None = None,
    turns: Mapping[nn.Parameter, range] | None = None,
) -> dict[str, Any]:
    """What `LightningModule.configure_optimizers` returns.

    Weight decay touches matrices alone; the rate rises over the first `warmup_share` of the steps
    and falls to 0 along a cosine. `rates`: parameters that learn at a share of it. `turns`: parameters
    that learn in these steps alone, with a rise and a fall of their own.
    """
    always = range(total_steps)
    shares: dict[tuple[float, int, int], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            turn = (turns or {}).get(parameter, always)
            place = (rates or {}).get(parameter, 1.0), turn.start, turn.stop
            shares.setdefault(place, []).append(parameter)
    groups, schedules = [], []
    for (share, start, stop), trained in sorted(shares.items(), reverse=True):
        settings = {"lr": config.learning_rate * share}
        matrices = [p for p in trained if is_matrix(p)]
        others = [p for p in trained if not is_matrix(p)]
        for params, decay in ((matrices, config.weight_decay), (others, 0.0)):
            if params:
                groups.append({**settings, "params": params, "weight_decay": decay})
                schedules.append(partial(rate_at, range(start, stop), config.warmup_share))
    optimizer = GuardedAdamW(groups, config.learning_rate, config.average)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(turn: range, warmup_share: float, step: int) -> float:
    """The share of the learning rate in a step: a rise, then half a cosine; 0 outside the turn."""
    warmup = max(1, round(warmup_share * len(turn)))
    since = step - turn.start
    if since < 0 or since >= len(turn):
        return 0.0
    if since < warmup:
        return (since + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (since - warmup) / max(1, len(turn) - warmup))))


def is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2


def layer_rates(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Towers' weights → decay to the power of their distance from the tower's top layer.

    What lies below all layers is one further away; what is in no layer and not below them, 1.
    """
    if decay == 1:
        return {}
    named = list(model.named_parameters())
    found = {name: match for name, _ in named if (match := LAYER.search(name))}
    depth: dict[str, int] = {}
    for match in found.values():
        depth[match[1]] = max(depth.get(match[1], 0), int(match[2]) + 1)
    rates = {}
    for name, parameter in named:
        if name in found:
            rates[parameter] = decay ** (depth[found[name][1]] - 1 - int(found[name][2]))
        elif match := EMBEDDING.search(name):
            rates[parameter] = decay ** depth.get(match[1], 0)
    return rates
