"""Contrastive pretraining on one NVIDIA card: is it right, how fast is it, what does it take?

benchmarks/gpu/pretrain.sh                                   # makes the environment, then this
python -m benchmarks.gpu.pretrain --seconds 540              # where there is one already
python -m benchmarks.gpu.pretrain --device cpu --tiny        # the same code, no record, a minute

1. Losses and steps (also in parts, compiled, in bfloat16) against float64 on the CPU.
2. Steps of two towers of ViT-L/14's and ViT-B/32's sizes against open_clip (where it is installed)
   and Hugging Face's CLIPModel at equal towers, batches and precision, each as it is and compiled.
   `titles` are texts of 8 to 48 tokens: ours reads them as long as they are, the peers pad to 77.
3. Memory and losses through `launch.trainer` under ZeRO, against the plain run.

What is found is written after each stage, to `benchmarks/results` and to `$OUT` if that is set.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import checks
from benchmarks.gpu.steps import large_batches, record_failure, release, speeds
from benchmarks.gpu.towers import SIZES, peak_of
from benchmarks.record import RESULTS, ROOT, write_record

CELL_SECONDS = 120
STRATEGIES = ("auto", "zero3-offload", "zero3", "zero2")
GOAL = [
    "loss_gradient_error <= 1e-5",
    "step_gradient_error <= 1e-4",
    "parts_gradient_error <= 1e-4",
    "compiled_gradient_error <= 1e-4",
    "bf16_gradient_error <= 0.05",
    "l14_ours_mfu >= 0.4",
    "l14_ours_vs_peer_low >= 1.2",
    "zero2_loss_difference <= 1e-3",
    "zero3_loss_difference <= 1e-3",
    "zero3_offload_loss_difference <= 1e-3",
    "zero3_offload_share <= 0.6",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny towers; nothing is recorded")
    parser.add_argument("--seconds", type=float, default=540, help="what may be used of a clock")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch._dynamo.config.recompile_limit = 64  # several sizes and lengths share their code
    torch.backends.cudnn.allow_tf32 = False  # convolutions as exact as float32 products are
    if arguments.tiny:
        torch.compiler.set_stance("force_eager")  # compiling takes longer than all the rest
    Run(arguments.device, arguments.tiny, arguments.seconds).run()


class Run:
    def __init__(self, device: str, tiny: bool, seconds: float) -> None:
        self.device, self.tiny = device, tiny
        self.ends = time.monotonic() + seconds
        self.figures: dict[str, Any] = {comparison.split()[0]: None for comparison in GOAL}
        self.card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        self.peak = peak_of(self.card)
        self.figures["card_peak_tflops"] = self.peak / 1e12 if self.peak else "unknown card"
        self.figures["torch"] = torch.__version__

    def run(self) -> None:
        large = "tiny" if self.tiny else "l14"
        print(self.card, torch.__version__, flush=True)
        self.stage("checks", 0, lambda: checks(self.device))
        self.stage("l14", 60, lambda: self.speeds(large))
        self.stage("zero", 60, lambda: self.zero(large))
        if not self.tiny:
            self.stage("b32", 60, lambda: self.speeds("b32"))
        self.stage("l14_large", 60, lambda: self.large(large))

    def stage(self, name: str, needs: float, measure: Any) -> None:
        """Adds what `measure` finds, if `needs` seconds are left, and writes all there is."""
        left = self.ends - time.monotonic()
        if left < needs:
            print(f"{name}: left out, {left:.0f} s remain", flush=True)
            return
        started = time.monotonic()
        found: dict[str, Any] = {}
        with record_failure(name, found):
            found |= measure()
        release(self.device)
        prefix = "" if name in ("checks", "zero") else f"{name.split('_')[0]}_"
        found = {f"{prefix}{key}": value for key, value in found.items()}
        found[f"{name}_seconds"] = time.monotonic() - started
        self.figures |= found
        print(f"-- {name}", *(f"{k} = {v}" for k, v in found.items()), sep="\n   ", flush=True)
        if not self.tiny:
            self.write()

    def speeds(self, size: str) -> dict[str, Any]:
        """The peer is the faster of those that are installed, as they are."""
        torch._dynamo.reset()
        short: dict[str, Any] = {"fitting": (32,), "rounds": 2} if self.tiny else {}
        found = speeds(SIZES[size], self.device, self.peak, **short)
        peers = {name: found.get(f"{name}_samples_per_second", 0) for name in ("hf", "open_clip")}
        found["peer"] = best = max(peers, key=lambda name: peers[name])
        found["ours_vs_peer"] = found.get(f"ours_vs_{best}")
        found["ours_vs_compiled_peer"] = found.get(f"ours_vs_{best}_compiled")
        return found

    def large(self, size: str) -> dict[str, Any]:
        torch._dynamo.reset()
        pairs = self.figures.get("l14_batch") or 32
        return large_batches(SIZES[size], self.device, self.peak, pairs, 2 if self.tiny else 8)

    def zero(self, size: str) -> dict[str, Any]:
        """Each strategy in a process of its own (the tiny ones share one: imports take longest)."""
        found: dict[str, Any] = {}
        cells: dict[str, Any] = {}
        for strategies in [STRATEGIES] if self.tiny else [(one,) for one in STRATEGIES]:
            with record_failure("_".join(strategies).replace("-", "_"), found):
                cells |= self.cell(strategies, size)
        for strategy, cell in cells.items():
            name = strategy.replace("-", "_")
            found[f"{name}_peak_gib"] = peak = cell["bf16-mixed"]["peak_gib"]
            if "auto" not in cells or strategy == "auto":
                continue
            plain = cells["auto"]
            for precision, kind in (("32-true", ""), ("bf16-mixed", "bf16_")):
                pairs = zip(cell[precision]["losses"], plain[precision]["losses"], strict=True)
                difference = max(abs(mine - expected) / abs(expected) for mine, expected in pairs)
                found[f"{name}_{kind}loss_difference"] = difference
            if peak:
                found[f"{name}_share"] = peak / plain["bf16-mixed"]["peak_gib"]
        return found

    def cell(self, strategies: tuple[str, ...], size: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.gpu.zero", *strategies, "--size", size]
        done = subprocess.run(
            [*command, "--device", self.device],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=min(CELL_SECONDS, max(1.0, self.ends - time.monotonic())),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-600:])
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
        return json.loads(lines[-1])

    def write(self) -> None:
        folders = [RESULTS, *(Path(out) for out in [os.environ.get("OUT", "")] if out)]
        for folder in folders:
            write_record(
                "pretrain-gpu",
                claim="On one card, a contrastive step of ViT-L/14's size reaches 40 % of the card's "
                "bf16 rate and 1.2 times the samples per second of the peers as they train by "
                "default; gradients are those of float64, and ZeRO's losses those of the plain run.",
                command="benchmarks/gpu/pretrain.sh",
                seeds=[0],
                figures=self.figures,
                sources=[
                    "benchmarks/gpu/*.py",
                    "pretrain/grad_cache.py",
                    "pretrain/encoder.py",
                    "pretrain/objectives/contrast.py",
                    "pretrain/optim.py",
                    "pretrain/towers/*.py",
                ],
                goal=GOAL,
                note="One process; contenders take turns in rotating order; medians of wall time, "
                "95 % bootstrap intervals of their ratio. Model FLOPs are 6 × weights × tokens + "
                "12 × layers × width × tokens² (Chowdhery et al., 2022), nothing counted twice. `ours` "
                "is compiled layer by layer; `ours_vs_compiled_peer` compares with the peer "
                "compiled so too. Noise of true shapes on the device: no loading is measured.",
                machine=self.card,
                folder=folder,
            )


if __name__ == "__main__":
    main()
