"""An encoder pretrained for three steps on the demo's first shop, and settings for the second."""

from pathlib import Path

import pytest

from catalog.config import CatalogConfig
from finetune.config import FinetuneConfig, FinetuneDataConfig, LoraConfig
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    ReaderConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def encoder(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = {"model_type": "bert", "intermediate_size": 64, **SMALL}
    image = {"model_type": "vit", "intermediate_size": 64, "patch_size": 16, **SMALL}
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(demo_world / "home")),
        encoder=EncoderConfig(
            width=32,
            text=TowerConfig(config=text, vocab_size=300),
            image=TowerConfig(config=image, image_size=32),
            reader=ReaderConfig(layers=1, heads=2, max_history=8),
        ),
        data=PretrainDataConfig(rows=4, row_length=8, max_broken=0.1),
        trainer=TrainerConfig(max_steps=3, progress=False),
    )
    return run_pretraining(config, tmp_path_factory.mktemp("encoder") / "encoder", build_trainer)


@pytest.fixture(scope="session")
def settings(encoder: Path, demo_world: Path) -> FinetuneConfig:
    return FinetuneConfig(
        encoder=str(encoder),
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        lora=LoraConfig(rank=2, alpha=8),
        data=FinetuneDataConfig(rows=4, encode_items=12),
        trainer=TrainerConfig(max_steps=4, progress=False),
        validate_every=2,
    )
