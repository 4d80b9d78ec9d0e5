"""Contrastive losses against open_clip's; measures CPU time and memory of implementations in turns."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.statistics import Interval
from pretrain.objectives.contrast import sigmoid_loss, symmetric_info_nce

WIDTH = 256
ROUNDS = 9
Step = Callable[[], tuple[Tensor, ...]]


def steps(loss: str, batch: int) -> dict[str, Step]:
    """Our loss and open_clip's: functions that return the loss and the gradients of both sides and scale."""
    from open_clip.loss import (  # pyright: ignore[reportMissingImports]
        ClipLoss,
        SigLipLoss,
    )

    generator = torch.Generator().manual_seed(0)
    left, right = (
        F.normalize(torch.randn(batch, WIDTH, generator=generator), dim=-1).requires_grad_()
        for _ in range(2)
    )
    scale = torch.tensor([1 / 0.07], requires_grad=True)
    bias = torch.tensor([-10.0], requires_grad=True)
    everything = torch.ones(batch, dtype=torch.bool)
    leaves = (left, right, scale)

    def ours() -> tuple[Tensor, ...]:
        if loss == "infonce":
            value = symmetric_info_nce(left, right, scale, everything)
        else:
            value = sigmoid_loss(left, right, scale, bias, everything)
        return value.detach(), *torch.autograd.grad(value, leaves)

    peer = ClipLoss() if loss == "infonce" else SigLipLoss()

    def theirs() -> tuple[Tensor, ...]:
        if loss == "infonce":
            value = peer(left, right, scale)
        else:
            value = peer(left, right, scale, bias)
        return value.detach(), *torch.autograd.grad(value, leaves)

    return {"ours": ours, "open_clip": theirs}


def assert_equal(both: Mapping[str, Step]) -> None:
    """Asserts that both implementations return the same loss and gradients."""
    ours, theirs = (step() for step in both.values())
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def speed_figures(
    key: str, ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, Any]:
    """CPU seconds of each implementation, and the speedup of ours over each other one."""
    seconds, calibration = alternate(ways, rounds)
    others = [who for who in ways if who != "ours"]
    figures: dict[str, Any] = {}
    for who in others:
        name = f"{key}_speedup" if len(others) == 1 else f"{key}_speedup_over_{who}"
        figures[name] = ratio_of_medians(seconds[who], seconds["ours"])
    figures |= {f"{key}_{who}_cpu_seconds": float(np.median(s)) for who, s in seconds.items()}
    return figures | {f"{key}_matmul_cpu_seconds": float(np.median(calibration))}


def alternate(
    ways: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, list[float]], list[float]]:
    """CPU seconds of each implementation by round, and those of a matrix product for calibration."""
    seconds: dict[str, list[float]] = {who: [] for who in ways}
    calibration = []
    square = torch.randn(1024, 1024)
    for turn in range(rounds + 1):
        started = time.process_time()
        torch.mm(square, square)
        calibration.append(time.process_time() - started)
        first = turn % len(ways)
        for who in [*ways][first:] + [*ways][:first]:
            started = time.process_time()
            ways[who]()
            seconds[who].append(time.process_time() - started)
    return {who: taken[1:] for who, taken in seconds.items()}, calibration[1:]


def ratio_of_medians(above: list[float], below: list[float]) -> Interval:
    pairs = np.array([above, below])
    drawn = np.random.default_rng(0).integers(pairs.shape[1], size=(2000, pairs.shape[1]))
    samples = np.median(pairs[0][drawn], axis=1) / np.median(pairs[1][drawn], axis=1)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))


def rise_of_peak(step: Callable[[], object]) -> float:
    """MiB by which a call raises the peak of this process."""
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # resets the peak, which is that of the imports so far
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """Memory of this process in MiB: VmRSS is the current resident memory, VmHWM its peak."""
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith(which))
    return int(kib) / 1024
