"""The optimizer of every stage: AdamW, warm-up, cosine decay, layer-wise learning rates, EMA of weights."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from pretrain.config import OptimizerConfig

STAGED = r"stages?\.(\d+)(?:\.(?:layers?|blocks?)\.(\d+))?|layers\.(\d+)\.blocks\.(\d+)"
LAYER = re.compile(
    rf"\btowers\.(\w+)\..*?\b(?:{STAGED}|layer\.(\d+)\.layer\.(\d+)|(?:layers?|blocks?|h)\.(\d+))\."
)
"""Matches a weight in one of a tower's numbered layers; staged networks (Swin, ConvNeXt, MobileViT) restart
the numbers in each stage."""
TOWER = re.compile(r"\btowers\.(\w+)\.")


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that can skip a step (`skip_step`): weights, moments and step counts stay as they are.

    With `ema_decay` it keeps an exponential moving average (EMA) of the weights beside their moments, and
    copies it into the weights where `apply_ema` is set. Where weights are sharded (ZeRO 1, 2, 3), each
    rank's optimizer has its shards, and so the EMA is sharded and checkpointed like the moments.

    On CPU and GPU one fused kernel updates all weights.
    """

    skip_step = False
    apply_ema = False

    def __init__(self, groups: list[dict[str, Any]], lr: float, ema_decay: float = 0.0) -> None:
        devices = {p.device.type for group in groups for p in group["params"]}
        super().__init__(groups, lr=lr, fused=devices <= {"cpu", "cuda"} or None)
        # A fused step could undo fp16's loss scale itself, and Lightning then refuses to clip.
        self._step_supports_amp_scaling = False
        self.ema_decay = ema_decay

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:  # the forward and backward pass, which may set `skip_step`
            with torch.enable_grad():
                loss = closure()
        if not self.skip_step:
            super().step()
        if self.ema_decay:
            self._update_ema()
        return loss

    @torch.no_grad()
    def _update_ema(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "step" not in state:
                    continue
                if "ema" not in state:
                    state["ema"] = parameter.detach().clone()
                if not self.skip_step:
                    steps = float(state["step"])
                    # Early on, a fixed decay would weigh the initial weights too much.
                    decay = min(self.ema_decay, (1 + steps) / (10 + steps))
                    state["ema"].lerp_(parameter, 1 - decay)
                if self.apply_ema:
                    parameter.copy_(state["ema"])


def innermost(optimizer: Any) -> Any:
    """The optimizer inside Lightning's and DeepSpeed's wrappers."""
    while not isinstance(optimizer, GuardedAdamW) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig,
    total_steps: int,
    rates: Mapping[nn.Parameter, float] | None = None,
    schedule_windows: Mapping[nn.Parameter, range] | None = None,
) -> dict[str, Any]:
    """Optimizer and schedule, as `LightningModule.configure_optimizers` returns them.

    Weight decay applies to matrices alone; the learning rate rises over the first `warmup_share` of the
    steps and falls to 0 along a cosine. `rates`: parameters → factor on it. `schedule_windows`: parameters →
    the only steps in which they learn, with a warm-up and decay of their own.
    """
    always = range(total_steps)
    shares: dict[tuple[float, int, int], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            window = (schedule_windows or {}).get(parameter, always)
            place = (rates or {}).get(parameter, 1.0), window.start, window.stop
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
    optimizer = GuardedAdamW(groups, config.learning_rate, config.ema_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(window: range, warmup_share: float, step: int) -> float:
    """Learning rate factor of a step: linear warm-up, then half a cosine; 0 outside the `window`."""
    warmup = max(1, round(warmup_share * len(window)))
    since = step - window.start
    if since < 0 or since >= len(window):
        return 0.0
    if since < warmup:
        return (since + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (since - warmup) / max(1, len(window) - warmup))))


def is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2


def layer_rates(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Layer-wise learning rate factors: weight → `decay` to the power of its layers below the tower's top.

    Layers are counted along the whole network, through all its stages; weights that lead into a stage belong
    to its first layer, those that lead out of it to its last. Weights before the first layer (embeddings, a
    stem) are one layer further down. Weights after the last layer, towers without numbered layers, and
    weights outside towers have factor 1.
    """
    if decay == 1:
        return {}
    depths: dict[str, dict[tuple[str, ...], int]] = {}
    """Tower → its layers, by their numbers, in the order of the network (that of registration)."""
    placed: dict[nn.Parameter, tuple[str, int]] = {}
    for name, parameter in model.named_parameters():
        tower = TOWER.search(name)
        if tower is None:
            continue
        known = depths.setdefault(tower[1], {})
        layer = LAYER.search(name)
        if layer is None:
            if not known:
                placed[parameter] = tower[1], -1
            continue
        numbers = tuple(number for number in layer.groups()[1:] if number is not None)
        if len(numbers) == 1:  # perhaps in a stage, but in none of its layers
            last = next(reversed(known), ())
            if len(last) == 2 and last[0] == numbers[0]:
                numbers = last
            elif layer[2] is not None:
                numbers = (*numbers, "0")
        placed[parameter] = tower[1], known.setdefault(numbers, len(known))
    tops = {tower: len(known) - 1 for tower, known in depths.items()}
    return {
        p: decay ** (tops[tower] - place)
        for p, (tower, place) in placed.items()
        if tops[tower] >= 0
    }
