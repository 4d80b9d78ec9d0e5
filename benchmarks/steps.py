"""Compares pretraining with peers: losses, gradient caching, whole steps; CPU seconds and memory.

python -m benchmarks.steps    # about 12 minutes of CPU time
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import torch

from benchmarks import contrast
from benchmarks.clip_steps import BATCH, PIXELS, whole_steps
from benchmarks.contrast import assert_equal, rise_of_peak, speed_figures
from benchmarks.gradient_caching import PART_TOKENS, REAL_TOKENS, TOKENS, cached_steps
from benchmarks.peers import make_peers_importable
from benchmarks.record import ROOT, write_record
from benchmarks.tiny_encoders import LONGEST, WIDTH, item_texts

COMMAND = "python -m benchmarks.steps"
LOSSES = ("infonce", "sigmoid")
LOSS_BATCHES = (4096, 8192)
LOSS_MEMORY_BATCHES = (8192, 16384)
CACHED_BATCHES = {512: 9, 2048: 5}
"""Batch size → rounds."""
CACHED_MEMORY_BATCHES = (512, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=3, metavar=("WHAT", "WHO", "BATCH"), help="one memory cell")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    make_peers_importable()
    if cell:
        print(json.dumps(memory_of(cell[0], cell[1], int(cell[2]))))
        return
    write_speed()
    write_memory()


def write_speed() -> None:
    figures: dict[str, Any] = {}
    for loss in LOSSES:
        for batch in LOSS_BATCHES:
            both = contrast.steps(loss, batch)
            assert_equal(both)
            figures |= speed_figures(f"{loss}_{batch}", both)
    lengths = item_texts()["attention_mask"].sum(dim=1).clamp(max=REAL_TOKENS)
    for batch, rounds in CACHED_BATCHES.items():
        both = cached_steps(batch, lengths)
        assert_equal(both)
        figures |= speed_figures(f"cached_{batch}", both, rounds)
    both = cached_steps(512)
    assert_equal(both)
    figures |= speed_figures("cached_full_length_512", both)
    figures |= whole_steps()
    write_record(
        "pretrain-speed",
        claim="Contrastive pretraining costs less CPU time than its peers: the losses than "
        "open_clip's, gradient caching of texts of real lengths than sentence-transformers', a "
        "whole step than transformers' CLIPModel.",
        command=COMMAND,
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/clip_steps.py",
            "benchmarks/contrast.py",
            "benchmarks/gradient_caching.py",
            "benchmarks/tiny_encoders.py",
            "pretrain/grad_cache.py",
            "pretrain/encoder.py",
            "pretrain/objectives/contrast.py",
            "pretrain/towers/*.py",
        ],
        goal=[
            *(f"{loss}_{batch}_speedup_low >= 1.5" for loss in LOSSES for batch in LOSS_BATCHES),
            *(f"cached_{batch}_speedup_low >= 1.0" for batch in CACHED_BATCHES),
            "step_full_length_speedup_low >= 1.0",
            "step_real_length_speedup_over_longest_low >= 1.2",
        ],
        note="One thread, one run: rounds alternate in rotating order, with a matrix product as "
        "calibration; medians of process time, 95 % bootstrap intervals of their ratio. Losses: "
        f"width {contrast.WIDTH}. Cached: loss and backward pass of a 2-layer BERT of width {WIDTH}, "
        f"{PART_TOKENS} tokens a part, against CachedMultipleNegativesRankingLoss in both directions; "
        f"texts as long as those of fashion items, at most {REAL_TOKENS} tokens, and full_length, "
        f"which has no goal, {TOKENS} everywhere. Step: forward, loss, backward and AdamW of "
        f"{BATCH} items, 3-layer CLIP towers of width {WIDTH}, pictures of {PIXELS} pixels in patches "
        "of 16; full_length "
        f"has {LONGEST} tokens everywhere, real_length the texts of fashion items, which the peer "
        "pads to the longest of the batch or to the most there can be. Ours also has its "
        "projections' norms, heads and fusion. Asserted first: equal losses and gradients of losses "
        "and cached; in a step equal outputs of equal towers, and the same loss of the same vectors.",
    )


def write_memory() -> None:
    figures: dict[str, Any] = {}
    for what in LOSSES:
        figures |= memory_figures(what, "open_clip", LOSS_MEMORY_BATCHES)
    figures |= memory_figures("cached", "sentence_transformers", CACHED_MEMORY_BATCHES)
    write_record(
        "pretrain-memory",
        claim="Twice the batch takes at most 2.3 times the memory in the contrastive losses; with "
        "gradient caching, a batch 16 times as large takes the same within 15 %.",
        command=COMMAND,
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/contrast.py",
            "benchmarks/gradient_caching.py",
            "benchmarks/tiny_encoders.py",
            "pretrain/grad_cache.py",
            "pretrain/objectives/contrast.py",
        ],
        goal=[
            *(f"{loss}_ours_growth <= 2.3" for loss in LOSSES),
            # Control of the measurement: full matrices must grow with the square of the batch.
            *(f"{loss}_open_clip_growth >= 3.0" for loss in LOSSES),
            "cached_ours_growth <= 1.15",
        ],
        note="MiB by which one step, gradients included, raises the peak resident memory of a fresh "
        "process over what it held with model and inputs; what is freed goes back to the system at "
        f"once. Losses: width {contrast.WIDTH}. Cached: loss and backward pass of a 2-layer BERT of "
        f"width {WIDTH}, {PART_TOKENS // TOKENS} texts of {TOKENS} tokens a part.",
    )


def memory_figures(what: str, peer: str, batches: tuple[int, int]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for who in ("ours", peer):
        for batch in batches:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.steps", "--cell", what, who, str(batch)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **GIVE_BACK},
                capture_output=True,
                text=True,
                check=True,
            )
            figures[f"{what}_{who}_{batch}_mib"] = json.loads(done.stdout.splitlines()[-1])
        small, large = (figures[f"{what}_{who}_{batch}_mib"] for batch in batches)
        figures[f"{what}_{who}_growth"] = large / small
    return figures


GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""malloc settings that return freed memory at once, so that it is not counted as used."""


def memory_of(what: str, who: str, batch: int) -> float:
    """MiB by which one step raises the peak memory, after a small warm-up step."""
    if what == "cached":
        cached_steps(8, part_tokens=4 * TOKENS)[who]()
        return rise_of_peak(cached_steps(batch)[who])
    contrast.steps(what, 64)[who]()
    return rise_of_peak(contrast.steps(what, batch)[who])


if __name__ == "__main__":
    main()
