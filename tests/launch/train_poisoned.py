"""Run by torchrun or alone: pretrains a few steps with something that is not a number in them.

train_poisoned.py WORLD OUTPUT STRATEGY DEVICES POISON FROM UNTIL

POISON (image, text, gradient) is in what the last rank does in steps FROM … UNTIL - 1. Writes the sum
of all weights after every step beside OUTPUT.
"""

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.errors import VitrineError
from launch.cli import exit_process
from launch.trainer import build_trainer
from pretrain.run import run_pretraining
from pretrain.shards import gathered_weights

ONCE = runpy.run_path(str(Path(__file__).parents[1] / "pretrain" / "train_once.py"))


class Poison(pl.Callback):
    """Puts it there, and keeps the weights' sum after each step."""

    def __init__(self, what: str, first: int, last: int) -> None:
        self.what = what
        self.steps = range(first, last)
        self.sums: list[float] = []

    def now(self, trainer: pl.Trainer) -> bool:
        return trainer.global_rank == trainer.world_size - 1 and trainer.global_step in self.steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        def poison(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf") if self.now(trainer) else gradient

        if self.what == "gradient":
            pl_module.encoder.gate.score.weight.register_hook(poison)
        if self.what == "text":
            pl_module.encoder.projections["text"].register_forward_hook(
                lambda _module, _inputs, vectors: (
                    vectors * float("nan") if self.now(trainer) else vectors
                )
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.what == "image" and self.now(trainer):
            batch.content["image"]["pixel_values"][0, 0, 0, 0] = float("nan")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any, **__: Any) -> None:
        with gathered_weights(pl_module):
            self.sums.append(sum(float(p.detach().double().sum()) for p in pl_module.parameters()))


def main(
    world: str, output: str, strategy: str, devices: str, what: str, first: str, last: str
) -> int:
    torch.set_num_threads(1)
    poison = Poison(what, int(first), int(last))

    def build(config, folder, title, callbacks=()):
        # The poison first: the guard must see what it did.
        return ONCE["shard_everything"](
            build_trainer(config, folder, title, callbacks=[poison, *callbacks])
        )

    config = ONCE["settings"](world, strategy, int(devices))
    trainer = replace(config.trainer, max_nonfinite_steps=3, checkpoint_every=1)
    try:
        run_pretraining(replace(config, trainer=trainer), Path(output), build)
    except VitrineError as error:
        print(f"vitrine: {error}", file=sys.stderr)
        return 2
    finally:
        if int(os.environ.get("RANK", "0")) == 0:
            Path(output).with_suffix(".json").write_text(json.dumps(poison.sums))
    return 0


if __name__ == "__main__":
    exit_process(main(*sys.argv[1:]))
