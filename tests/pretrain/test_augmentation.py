"""Augmentation changes what a trained tower sees, never what is embedded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import MODELS
from benchmarks.tiny_towers import tiny_shop
from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from launch.trainer import build_trainer
from pretrain.artifact import new_encoder
from pretrain.augmentation import augment, crop_and_flip, jitter_colors
from pretrain.config import (
    AugmentationConfig,
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

STRONG = AugmentationConfig(crop_area=0.3, flip=0.5, color_jitter=0.4)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return tiny_shop(tmp_path_factory.mktemp("tiny") / "shop")


def encoder_config(augmentation: AugmentationConfig) -> EncoderConfig:
    image = TowerConfig(
        config={"model_type": "vit", **MODELS["vit"][1]}, image_size=32, augmentation=augmentation
    )
    sequence = SequenceConfig(layers=1, heads=2)
    text = TowerConfig(config={"model_type": "bert", **MODELS["bert"][1]}, vocab_size=300)
    return EncoderConfig(width=16, text=text, image=image, sequence=sequence)


def ramp(k: int = 1, frames: int = 1) -> Tensor:
    """Images whose red grows from left to right, and green from top to bottom: (k, frames, 3, 16, 16)."""
    places = (torch.arange(16) + 0.5) / 16
    red, green = places.expand(16, 16), places.unsqueeze(1).expand(16, 16)
    return torch.stack([red, green, torch.full((16, 16), 0.5)]).expand(k, frames, 3, 16, 16).clone()


def test_a_crop_is_a_part_of_the_image_and_has_the_area_asked_for() -> None:
    torch.manual_seed(0)
    cropped = crop_and_flip(ramp(4000), 0.25, 0.0)[:, 0]
    wide = (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]) * 16 / 15
    high = (cropped[:, 1, -1, 0] - cropped[:, 1, 0, 0]) * 16 / 15
    area = wide * high
    assert cropped.min() >= 0
    assert cropped.max() <= 1
    assert 0.24 < area.min() < 0.3
    assert area.mean() == pytest.approx((1 + 0.25) / 2, abs=0.03)
    assert 1.3 < (wide / high).max() < 1.37  # 4 / 3, but for the image's border


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    flipped = crop_and_flip(ramp(1000), 1.0, 0.5)[:, 0]
    mirrored = flipped[:, 0, 0, 0] > flipped[:, 0, 0, -1]
    assert 0.45 < mirrored.float().mean() < 0.55
    assert torch.allclose(flipped[mirrored][0], ramp()[0, 0].flip(-1), atol=1e-5)
    assert torch.allclose(flipped[~mirrored][0], ramp()[0, 0], atol=1e-5)


def test_colours_stay_colours_and_grey_stays_grey() -> None:
    torch.manual_seed(0)
    assert jitter_colors(ramp(50), 0.5).min() >= 0
    assert jitter_colors(ramp(50), 0.5).max() <= 1
    grey = jitter_colors(torch.rand(50, 1, 1, 8, 8).expand(50, 1, 3, 8, 8), 0.5)
    assert torch.allclose(grey[:, :, 0], grey[:, :, 1], atol=1e-6)
    assert torch.equal(jitter_colors(ramp(), 0.0), ramp())


def test_frames_of_a_clip_are_augmented_alike() -> None:
    spec = {"augmentation": vars(STRONG), "mean": [0.5] * 3, "std": [0.5] * 3}
    torch.manual_seed(0)
    clips = augment(spec, ramp(3, 4))
    assert torch.allclose(clips[:, 0], clips[:, 3], atol=1e-6)
    assert not torch.allclose(clips[0], clips[1], atol=1e-2)


def test_only_training_augments(shop: Catalog) -> None:
    bundle = new_encoder(replace(encoder_config(STRONG), modality_dropout=0.0), shop)
    content = bundle.content_loader(shop).read(np.arange(8))

    def vectors(training: bool) -> Tensor:
        bundle.encoder.train(training)
        with torch.no_grad():
            return bundle.encoder.read("image", content)

    for module in bundle.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(vectors(False), vectors(False))
    assert not torch.allclose(vectors(True), vectors(True))


def losses(
    shop: Catalog, output: Path, augmentation: AugmentationConfig, **data: Any
) -> list[float]:
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(shop.folder)),
        encoder=encoder_config(augmentation),
        data=PretrainDataConfig(rows=4, row_length=6, held_out=0.0, **data),
        trainer=TrainerConfig(
            max_steps=3, log_every=1, checkpoint_every=0, progress=False, log_to="csv"
        ),
    )
    folder = run_pretraining(config, output, build_trainer)
    return [value for _, value in json.loads((folder / "curves.json").read_text())["loss"]]


def test_the_stream_is_the_same_with_any_number_of_loader_processes(
    shop: Catalog, tmp_path: Path
) -> None:
    alone = losses(shop, tmp_path / "alone", STRONG)
    assert losses(shop, tmp_path / "workers", STRONG, workers=2) == alone
    assert losses(shop, tmp_path / "plain", AugmentationConfig()) != alone
