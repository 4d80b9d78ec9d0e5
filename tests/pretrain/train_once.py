"""Run by torchrun or alone: pretrains a few steps on a folder and writes what came of it.

train_once.py WORLD OUTPUT STRATEGY DEVICES
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch

from catalog.config import CatalogConfig
from launch.cli import exit_process
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    ObjectivesConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

GLOBAL_ROWS = 4


def settings(world: str, strategy: str, devices: int) -> PretrainConfig:
    """Tiny towers without dropout, so that ranks and one process compute the same."""
    text = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text |= {
        "intermediate_size": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    image = {
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    image |= {"intermediate_size": 64, "patch_size": 16}
    return PretrainConfig(
        catalog=CatalogConfig(path=world),
        encoder=replace(
            EncoderConfig(),
            width=32,
            text=TowerConfig(config=text, vocab_size=300),
            image=TowerConfig(config=image, image_size=32),
            sequence=SequenceConfig(layers=1, heads=2, dropout=0.0),
            modality_dropout=0.0,
        ),
        objectives=ObjectivesConfig(sigmoid=0.5),
        # Ranks cache gradients, one process does not: neither may make a difference.
        data=PretrainDataConfig(
            rows=GLOBAL_ROWS // devices,
            row_length=8,
            num_micro_batches=1 if devices == 1 else 3,
            max_broken=0.1,
        ),
        trainer=TrainerConfig(
            max_steps=8,
            accelerator="cpu",
            devices=devices,
            strategy=strategy,
            log_every=1,
            progress=False,
        ),
    )


class Witness(pl.Callback):
    """Writes down, while it trains, what really runs: several launchers fall back in silence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            engine = type(trainer.strategy.model).__name__
            facts = {"world_size": trainer.world_size, "engine": engine}
            self.path.write_text(json.dumps(facts))


def shard_everything(trainer: pl.Trainer) -> pl.Trainer:
    """DeepSpeed keeps weights as small as these whole; here ZeRO-3 shall really gather and release."""
    settings = getattr(trainer.strategy, "config", None) or {}
    if "zero_optimization" in settings:
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return trainer


def main(world: str, output: str, strategy: str, devices: str) -> None:
    torch.set_num_threads(1)
    witness = Witness(Path(output).with_suffix(".json"))

    def build(config, folder, title, callbacks=()):
        return shard_everything(
            build_trainer(config, folder, title, callbacks=[*callbacks, witness])
        )

    run_pretraining(settings(world, strategy, int(devices)), Path(output), build)


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
