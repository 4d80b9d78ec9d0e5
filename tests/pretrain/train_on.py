"""Run by torchrun or alone: pretrains a few steps, may be killed, and writes down which rows it read.

    train_on.py WORLD OUTPUT '{"strategy": "zero2", "devices": 2, …}'

`Run` has the rest. OUTPUT.rank<n>.rows gets a line for each step that is behind the weights: the step,
and the rows the rank read in it. A run that resumes strikes out what was done after the checkpoint;
OUTPUT.steps keeps every step that was done, with its seconds.
"""

import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

import launch.checkpoints
from launch.cli import exit_process
from launch.graceful_stop import StoppedError, end
from launch.trainer import build_trainer
from pretrain.config import ObjectivesConfig
from pretrain.data import PretrainBatch, PretrainData
from pretrain.objectives import OBJECTIVES
from pretrain.packing import PackedHistories
from pretrain.run import run_pretraining

ONCE = runpy.run_path(str(Path(__file__).with_name("train_once.py")))


@dataclass(frozen=True)
class Run:
    strategy: str = "auto"
    devices: int = 1
    rows: int = 4
    """Over all devices."""
    steps: int = 16
    accumulate: int = 1
    every: int = 3
    """Steps between checkpoints."""
    dropout: float = 0.0
    every_objective: bool = False
    """A decoder for words, and every objective that such an encoder allows."""
    ema_decay: float = 0.0
    layer_decay: float = 1.0
    activation_checkpointing: bool = False
    compile: bool = False
    workers: int = 0
    max_broken: float = 0.1
    hang_timeout: float = 300.0
    seed: int = 0
    nan_steps: tuple[int, ...] = ()
    """In these a row of pictures is not a number, on the last rank."""
    kill_at: int = -1
    """The first rank is killed in the backward pass of this step."""
    kill_writing: int = -1
    """It is killed while it writes the checkpoint after this step."""


class Poison(pl.Callback):
    """Comes before the guard, which must see what it did."""

    def __init__(self, steps: Collection[int]) -> None:
        self.steps = frozenset(steps)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.steps and trainer.global_rank == trainer.world_size - 1:
            batch.content["image"]["pixel_values"][:1] = float("nan")


class Witness(pl.Callback):
    """Writes down rows, world size and engine; kills its process when asked to."""

    def __init__(self, run: Run, output: Path) -> None:
        self.run = run
        self.output = output

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.log = self.output.with_name(f"{self.output.name}.rank{trainer.global_rank}.rows")
        self.log.with_suffix(".pid").write_text(str(os.getpid()))
        self.began = time.perf_counter()
        if trainer.is_global_zero:
            for log in self.output.parent.glob(f"{self.output.name}.rank*.rows"):
                lines = log.read_text().splitlines(keepends=True)
                log.write_text("".join(lines[: trainer.global_step * self.run.accumulate]))
            self.facts: dict[str, Any] = {
                "world_size": trainer.world_size,
                "engine": type(trainer.strategy.model).__name__,
                "kind": launch.checkpoints.kind_of(trainer.strategy),
                "first_step": trainer.global_step,
            }
            self.output.with_suffix(".json").write_text(json.dumps(self.facts))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.facts["seconds"] = time.perf_counter() - self.began
            self.output.with_suffix(".json").write_text(json.dumps(self.facts))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.step = trainer.global_step
        self.step_began = time.perf_counter()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step == self.run.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        with self.log.open("a") as file:
            file.write(" ".join(map(str, (self.step, *batch.numbers))) + "\n")
        if trainer.is_global_zero:
            with self.output.with_suffix(".steps").open("a") as file:
                file.write(f"{self.step} {time.perf_counter() - self.step_began:.6f}\n")


def number_rows() -> None:
    """Lets each batch know the numbers of its rows, also where a worker process makes it."""
    read: list[int] = []
    get, collate = PackedHistories.__getitem__, PretrainData.collate
    transfer = PretrainData.transfer_batch_to_device

    def noted_get(self: PackedHistories, row: int) -> Any:
        read.append(row)
        return get(self, row)

    def noted_collate(self: PretrainData, rows: Any) -> PretrainBatch:
        batch = collate(self, rows)
        batch.numbers = tuple(read)
        read.clear()
        return batch

    def noted_transfer(self: PretrainData, batch: Any, *where: Any) -> PretrainBatch:
        moved = transfer(self, batch, *where)
        moved.numbers = batch.numbers
        return moved

    PackedHistories.__getitem__ = noted_get
    PretrainData.collate = noted_collate
    PretrainData.transfer_batch_to_device = noted_transfer


def die_writing(step: int) -> None:
    compute_checksums: Callable[..., Any] = launch.checkpoints.compute_checksums

    def sum_or_die(folder: Path, *share: int) -> Any:
        if folder.name == f"step={step}.partial":
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_checksums(folder, *share)

    launch.checkpoints.compute_checksums = sum_or_die


def main(world: str, output: str, settings: str) -> int:
    torch.set_num_threads(1)
    run = Run(**json.loads(settings))
    number_rows()
    die_writing(run.kill_writing)
    config = ONCE["settings"](world, run.strategy, run.devices)
    if run.every_objective:
        decoder = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
        decoder |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        text = replace(config.encoder.text, config=decoder, pooling="last")
        weights = dict.fromkeys(OBJECTIVES.keys() - {"edges"}, 0.5)
        config = replace(
            config,
            encoder=replace(config.encoder, text=text),
            objectives=ObjectivesConfig(**weights),
        )
    config = replace(
        config,
        encoder=replace(
            config.encoder,
            sequence=replace(config.encoder.sequence, dropout=run.dropout),
            modality_dropout=run.dropout,
        ),
        data=replace(
            config.data,
            rows=run.rows // run.devices,
            workers=run.workers,
            max_broken=run.max_broken,
            num_micro_batches=1,
            activation_checkpointing=run.activation_checkpointing,
            compile=run.compile,
        ),
        optimizer=replace(config.optimizer, ema_decay=run.ema_decay, layer_decay=run.layer_decay),
        trainer=replace(
            config.trainer,
            max_steps=run.steps,
            accumulate=run.accumulate,
            checkpoint_every=run.every,
            hang_timeout=run.hang_timeout,
            seed=run.seed,
        ),
    )
    witness = Witness(run, Path(output))

    def build(config: Any, folder: Path, title: str, callbacks: Any = ()) -> pl.Trainer:
        return ONCE["shard_everything"](
            build_trainer(
                config, folder, title, callbacks=[Poison(run.nan_steps), *callbacks, witness]
            )
        )

    try:
        run_pretraining(config, Path(output), build)
    except StoppedError as stop:
        return end(stop)
    return 0


if __name__ == "__main__":
    exit_process(main(*sys.argv[1:]))
