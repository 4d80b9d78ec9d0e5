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
from pytorch_lightning.strategies import DeepSpeedStrategy

from catalog.staging import flush
from launch.strategies import kind_of
from pretrain.work import WRITTEN

STATE = "state"
"""In a checkpoint: a file of Lightning's, or under ZeRO a folder of DeepSpeed's."""


class Checkpoints(Checkpoint):
    """Every `every` steps `checkpoints/step=N`; the one before it goes when the new one stands.

    A module whose `frozen_is_unchanged` says so has no frozen weight in them: a run that goes on has
    those from where it had them at first, and beside an adapter of a few MB they would be gigabytes.

    Lightning calls callbacks of this kind last, when all others have seen the step.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder / "checkpoints"
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.leaves_out = getattr(pl_module, "frozen_is_unchanged", False)
        pl_module.strict_loading = not self.leaves_out  # `on_load_checkpoint` is, about the rest
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            trainer.strategy.exclude_frozen_parameters = self.leaves_out

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for name in frozen(pl_module) if self.leaves_out else ():
            checkpoint.get("state_dict", {}).pop(name, None)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.leaves_out or "state_dict" not in checkpoint:
            return  # Lightning or DeepSpeed are strict themselves
        wanted = pl_module.state_dict().keys() - frozen(pl_module)
        different = wanted ^ (checkpoint["state_dict"].keys() - frozen(pl_module))
        if different:
            raise RuntimeError(f"the checkpoint is of other weights: {sorted(different)[:3]}")

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


def frozen(module: torch.nn.Module) -> set[str]:
    """Names of the weights that are not trained, in its state; shared ones by each of their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


class SeedEachStep(pl.Callback):
    """Makes what torch draws in a step (dropout) a function of (seed, batch, rank)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.default_rng(place).integers(2**63)))
