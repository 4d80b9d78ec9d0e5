"""A few steps through the project's own trainer under one strategy, in a process of its own.

python -m benchmarks.gpu.zero zero3-offload --size l14    # prints one line of JSON
"""

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.gpu.towers import SIZES, Size, batch_of, our_module
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from pretrain.data import PretrainBatch

STEPS = 4
PRECISIONS = ("bf16-mixed", "32-true")
"""The first for its memory, the second for losses that must agree."""


class Batches(Dataset[PretrainBatch]):
    def __init__(self, size: Size, pairs: int) -> None:
        self.size, self.pairs = size, pairs

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> PretrainBatch:
        return batch_of(self.size, self.pairs, "cpu", seed=step)


class Watch(pl.Callback):
    """Keeps each step's loss, and the memory from the first step on."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def fit(strategy: str, precision: str, size: Size, pairs: int, device: str) -> dict[str, Any]:
    config = TrainerConfig(
        max_steps=STEPS,
        accelerator="gpu" if device == "cuda" else "cpu",
        strategy=strategy,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        progress=False,
    )
    pl.seed_everything(0, verbose=False)
    watch = Watch()
    module = our_module(size, pairs)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder), "", [watch], logger=False)
        trainer.fit(module, DataLoader(Batches(size, pairs), batch_size=None))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {"losses": watch.losses, "peak_gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="+", help="one after the other, in this process")
    parser.add_argument("--size", choices=SIZES, default="l14")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    size = SIZES[arguments.size]
    found = {
        strategy: {
            precision: fit(strategy, precision, size, arguments.pairs, arguments.device)
            for precision in PRECISIONS
        }
        for strategy in arguments.strategies
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
