"""Writes checkpoints that are whole or not there, and makes steps that do not depend on the past.

A run that goes on from a checkpoint is to do what the uninterrupted one does, to the bit.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from catalog.staging import flush
from launch.strategies import kind_of
from pretrain.work import WRITTEN

STATE = "state"
"""In a checkpoint: a file of Lightning's, or under ZeRO a folder of DeepSpeed's."""


class Checkpoints(Checkpoint):
    """Every `every` steps `checkpoints/step=N`; the one before it goes when the new one stands.

    Lightning calls callbacks of this kind last, when all others have seen the step.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder / "checkpoints"
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.latest = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        if step % self.every == 0 and step > self.latest:  # not again between accumulated batches
            self.latest = step
            self._write(trainer, self.folder / f"step={step}")

    def _write(self, trainer: pl.Trainer, final: Path) -> None:
        partial = final.with_suffix(".partial")
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        trainer.strategy.barrier()
        trainer.save_checkpoint(partial / STATE)  # all ranks have written when it returns
        if trainer.is_global_zero:
            facts = {
                "step": trainer.global_step,
                "world_size": trainer.world_size,
                "strategy": kind_of(trainer.strategy),
            }
            (partial / WRITTEN).write_text(json.dumps(facts), encoding="utf8")
            flush(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for older in self.folder.iterdir():
                if older != final:
                    shutil.rmtree(older)
        trainer.strategy.barrier()


class SeedEachStep(pl.Callback):
    """Makes what torch draws in a step (dropout) a function of (seed, batch, rank)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.default_rng(place).integers(2**63)))
