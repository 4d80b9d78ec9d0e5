"""Starts `train_stage.py` in processes of its own, for tests and benchmarks; stages too small to learn."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from catalog.config import CatalogConfig, SplitConfig
from finetune.config import FinetuneConfig, FinetuneDataConfig, LoraConfig
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

SCRIPT = Path(__file__).with_name("train_stage.py")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def train(
    settings: Path,
    output: Path,
    strategy: str = "auto",
    devices: int = 1,
    kill_at: int = -1,
    stage: str = "finetune",
) -> dict[str, Any]:
    """What really ran; asserts that it ended, or was killed, as it should."""
    start = [sys.executable]
    if devices > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    arguments = [stage, settings, output, strategy, devices, kill_at]
    done = subprocess.run(
        [*start, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    expected = 0 if kill_at < 0 else -signal.SIGKILL if devices == 1 else 1
    assert done.returncode == expected, done.stderr[-9000:]
    ran = json.loads(output.with_suffix(".json").read_text())
    assert ran["world_size"] == devices
    if strategy.startswith("zero"):
        assert ran["kind"] == strategy
        assert ran["engine"] == "DeepSpeedEngine"
    assert ran["sharded"] == (strategy == "zero3")
    return ran


def pretrain_small(world: Path, output: Path, steps: int = 3, precision: Any = "32-true") -> Path:
    """An encoder of the demo's first shop."""
    text = {"model_type": "bert", "intermediate_size": 64, **SMALL}
    image = {"model_type": "vit", "intermediate_size": 64, "patch_size": 16, **SMALL}
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(world / "home")),
        encoder=EncoderConfig(
            width=32,
            text=TowerConfig(config=text, vocab_size=300),
            image=TowerConfig(config=image, image_size=32),
            sequence=SequenceConfig(layers=1, heads=2, max_history=8),
        ),
        data=PretrainDataConfig(rows=4, row_length=8, max_broken=0.1),
        trainer=TrainerConfig(max_steps=steps, progress=False, precision=precision),
    )
    return run_pretraining(config, output, build_trainer)


def small_recommender(world: Path, folder: Path) -> FinetuneConfig:
    """Of the demo's second shop, `recommender` in the folder, its encoder beside it; how it was made."""
    encoder = pretrain_small(world, folder / "encoder")
    config = replace(finetuning_of(encoder, world), split=SplitConfig(kind="leave-one-out"))
    run_finetuning(config, folder / "recommender", build_trainer)
    return config


def write_settings(config: Any, path: Path) -> Path:
    """A stage's settings as YAML."""
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))))
    return path


def finetuning_of(encoder: Path, world: Path) -> FinetuneConfig:
    """Four steps on the demo's second shop."""
    return FinetuneConfig(
        encoder=str(encoder),
        catalog=CatalogConfig(path=str(world / "wardrobe")),
        lora=LoraConfig(rank=2, alpha=8),
        data=FinetuneDataConfig(rows=4, encode_items=12),
        trainer=TrainerConfig(max_steps=4, progress=False),
        validate_every=2,
    )
