"""Run by torchrun or alone: fine-tunes a recommender, or trains a generator, a few steps, may be killed,
and writes what really ran.

train_stage.py STAGE SETTINGS OUTPUT STRATEGY DEVICES KILL_AT    # SETTINGS: the stage's, as YAML
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from finetune.config import FinetuneConfig
from finetune.run import run_finetuning
from generate.image.config import ImageConfig
from generate.image.run import run_image_generator
from generate.text.config import TextConfig
from generate.text.run import run_text_generator
from launch.cli import exit_process
from launch.settings import load_settings
from launch.strategies import kind_of
from launch.trainer import build_trainer

GLOBAL_ROWS = 4


class Witness(pl.Callback):
    """Several launchers fall back in silence: world size, engine and what is trained are written."""

    def __init__(self, output: Path, kill_at: int) -> None:
        self.output = output
        self.kill_at = kill_at

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            facts = {
                "world_size": trainer.world_size,
                "engine": type(trainer.strategy.model).__name__,
                "kind": kind_of(trainer.strategy),
                "first_step": trainer.global_step,
                "sharded": any(hasattr(p, "ds_id") for p in pl_module.parameters()),
            }
            self.output.with_suffix(".json").write_text(json.dumps(facts))

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


STAGES: dict[str, tuple[Any, Any]] = {
    "finetune": (run_finetuning, FinetuneConfig),
    "text": (run_text_generator, TextConfig),
    "image": (run_image_generator, ImageConfig),
}


def main(stage: str, settings: str, output: str, strategy: str, devices: str, kill_at: str) -> None:
    torch.set_num_threads(1)
    rows = GLOBAL_ROWS // int(devices)
    run, kind = STAGES[stage]
    config: Any = load_settings(kind, settings, [])
    if stage == "finetune":
        config = replace(config, data=replace(config.data, rows=rows))
    else:
        config = replace(config, batch_size=rows)
    config = replace(
        config, trainer=replace(config.trainer, strategy=strategy, devices=int(devices))
    )
    witness = Witness(Path(output), int(kill_at))

    def build(config: Any, folder: Path, title: str, callbacks: Any = ()) -> pl.Trainer:
        trainer = build_trainer(config, folder, title, callbacks=[*callbacks, witness])
        sharding = (getattr(trainer.strategy, "config", None) or {}).get("zero_optimization")
        if sharding:  # DeepSpeed keeps weights as small as these whole
            sharding["stage3_param_persistence_threshold"] = 0
        return trainer

    run(config, Path(output), build)


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
