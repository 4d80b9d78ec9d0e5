"""The contrastive losses against open_clip's: CPU seconds, memory, and the same gradients.

python -m benchmarks.contrast    # about 6 minutes on one core
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import make_peers_importable
from benchmarks.record import ROOT, write_record
from finetune.statistics import Interval
from pretrain.objectives.contrast import sigmoid_contrast, symmetric_contrast

WIDTH = 256
BATCHES = (4096, 8192)
MEMORY_BATCHES = (8192, 16384)
ROUNDS = 9
Step = Callable[[], tuple[Tensor, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=3, metavar=("LOSS", "WHO", "BATCH"), help="one memory cell")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    if cell:
        print(json.dumps(memory_of(cell[0], cell[1], int(cell[2]))))
        return
    make_peers_importable()
    write_speed()
    write_memory()


def steps(loss: str, batch: int) -> dict[str, Step]:
    """Ours and open_clip's: each returns the loss and the gradients of both sides and the scale."""
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
            value = symmetric_contrast(left, right, scale, everything)
        else:
            value = sigmoid_contrast(left, right, scale, bias, everything)
        return value.detach(), *torch.autograd.grad(value, leaves)

    peer = ClipLoss() if loss == "infonce" else SigLipLoss()

    def theirs() -> tuple[Tensor, ...]:
        if loss == "infonce":
            value = peer(left, right, scale)
        else:
            value = peer(left, right, scale, bias)
        return value.detach(), *torch.autograd.grad(value, leaves)

    return {"ours": ours, "open_clip": theirs}


def write_speed() -> None:
    figures: dict[str, object] = {}
    for loss in ("infonce", "sigmoid"):
        for batch in BATCHES:
            both = steps(loss, batch)
            for mine, other in zip(both["ours"](), both["open_clip"](), strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
            seconds, calibration = alternate(both)
            key = f"{loss}_{batch}"
            figures[f"{key}_speedup"] = ratio_of_medians(seconds["open_clip"], seconds["ours"])
            for who, taken in seconds.items():
                figures[f"{key}_{who}_cpu_seconds"] = float(np.median(taken))
            figures[f"{key}_matmul_cpu_seconds"] = float(np.median(calibration))
    write_record(
        "contrast-speed",
        claim="Loss and gradients of symmetric InfoNCE and of the sigmoid loss cost less CPU time "
        "than open_clip's ClipLoss and SigLipLoss.",
        command="python -m benchmarks.contrast",
        seeds=[0],
        figures=figures,
        goal=[
            f"{loss}_{batch}_speedup_low >= 1.5"
            for loss in ("infonce", "sigmoid")
            for batch in BATCHES
        ],
        note=f"Width {WIDTH}, one thread, one run: rounds alternate in rotating order, with a matrix "
        "product as calibration; medians of process time, 95 % bootstrap intervals of their ratio. "
        "Equal losses and gradients are asserted first.",
    )


def alternate(both: dict[str, Step]) -> tuple[dict[str, list[float]], list[float]]:
    """CPU seconds of each, round by round, and those of one matrix product in each round."""
    seconds: dict[str, list[float]] = {who: [] for who in both}
    calibration = []
    square = torch.randn(1024, 1024)
    for turn in range(ROUNDS + 1):
        order = list(both) if turn % 2 else list(reversed(both))
        started = time.process_time()
        square @ square
        calibration.append(time.process_time() - started)
        for who in order:
            started = time.process_time()
            both[who]()
            seconds[who].append(time.process_time() - started)
    return {who: taken[1:] for who, taken in seconds.items()}, calibration[1:]


def ratio_of_medians(above: list[float], below: list[float]) -> Interval:
    pairs = np.array([above, below])
    drawn = np.random.default_rng(0).integers(pairs.shape[1], size=(2000, pairs.shape[1]))
    samples = np.median(pairs[0][drawn], axis=1) / np.median(pairs[1][drawn], axis=1)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))


def memory_of(loss: str, who: str, batch: int) -> float:
    """MiB by which one step raises the peak of a fresh process."""
    make_peers_importable()
    steps(loss, 64)[who]()  # what the first call ever allocates is not the loss's
    step = steps(loss, batch)[who]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """This process's memory in MiB: VmRSS is what it holds now, VmHWM the most it ever held."""
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith(which))
    return int(kib) / 1024


def write_memory() -> None:
    figures: dict[str, object] = {}
    for loss in ("infonce", "sigmoid"):
        for who in ("ours", "open_clip"):
            for batch in MEMORY_BATCHES:
                command = [sys.executable, "-m", "benchmarks.contrast", "--cell", loss, who]
                done = subprocess.run(
                    [*command, str(batch)],
                    cwd=ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                figures[f"{loss}_{who}_{batch}_mib"] = json.loads(done.stdout.splitlines()[-1])
            small, large = (figures[f"{loss}_{who}_{batch}_mib"] for batch in MEMORY_BATCHES)
            assert isinstance(small, float)
            assert isinstance(large, float)
            figures[f"{loss}_{who}_growth"] = large / small
    write_record(
        "contrast-memory",
        claim="Twice the batch takes at most 2.3 times the memory in the contrastive losses.",
        command="python -m benchmarks.contrast",
        seeds=[0],
        figures=figures,
        goal=[
            "infonce_ours_growth <= 2.3",
            "sigmoid_ours_growth <= 2.3",
            # That it is measured at all: whole matrices must be seen to grow with the square.
            "infonce_open_clip_growth >= 3.0",
            "sigmoid_open_clip_growth >= 3.0",
        ],
        note=f"Width {WIDTH}; MiB by which one step, gradients included, raises the peak resident "
        "memory of a fresh process.",
    )


if __name__ == "__main__":
    main()
