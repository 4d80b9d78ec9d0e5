"""Frozen towers read each item once: what is kept is what they say, and nothing else runs them."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from launch.trainer import build_trainer
from pretrain import frozen
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import (
    EncoderConfig,
    ObjectivesConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.content_loader import ItemContentLoader
from pretrain.frozen import cache_frozen_features, frozen_towers
from pretrain.modalities.base import CACHED_FEATURES
from pretrain.run import run_pretraining

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODER = EncoderConfig(
    width=16,
    text=TowerConfig(
        config={"model_type": "bert", "intermediate_size": 64, **SMALL, **STILL},
        vocab_size=300,
        frozen=True,
    ),
    image=TowerConfig(
        config={"model_type": "vit", "intermediate_size": 64, "patch_size": 16, **SMALL},
        image_size=32,
    ),
    sequence=SequenceConfig(heads=2),
)


@pytest.fixture
def shop(demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    return load_catalog(CatalogConfig(path=str(demo_world / "home")))


@pytest.fixture
def bundle(shop: Catalog) -> EncoderBundle:
    torch.manual_seed(0)
    bundle = new_encoder(ENCODER, shop)
    bundle.encoder.eval()
    return bundle


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each pass through a text tower with weights read."""
    from transformers.models.bert.modeling_bert import BertModel

    found: list[int] = []
    forward = BertModel.forward

    def counted(self: BertModel, **inputs: Any) -> Any:
        if inputs["input_ids"].device.type != "meta":  # a probe of the tower's width
            found.append(len(inputs["input_ids"]))
        return forward(self, **inputs)

    monkeypatch.setattr(BertModel, "forward", counted)
    return found


@torch.no_grad()
def vectors(bundle: EncoderBundle, loader: ItemContentLoader, items: np.ndarray) -> torch.Tensor:
    return bundle.encoder(loader.read(items)).modality_embeddings


@pytest.mark.parametrize("change", ["none", "shuffled", "lost"])
def test_what_is_kept_is_what_the_tower_says(
    change: str, bundle: EncoderBundle, shop: Catalog, passes: list[int]
) -> None:
    assert frozen_towers(bundle.encoder) == ["text"]
    order = np.random.default_rng(0).permutation(shop.num_items) if change == "shuffled" else None
    fresh, kept = bundle.content_loader(shop, order), bundle.content_loader(shop, order)
    cache_frozen_features(bundle.encoder, kept, progress=False)
    if change == "lost":
        for loader in (fresh, kept):
            loader.drop_modality("text", np.arange(shop.num_items) % 3 == 0)
    for items in (np.arange(shop.num_items), np.array([5, 3, 9]), np.array([3])):
        expected = vectors(bundle, fresh, items)
        passes.clear()
        torch.testing.assert_close(vectors(bundle, kept, items), expected, atol=1e-5, rtol=1e-5)
        assert not passes
        assert set(kept.read(items)["text"]) == {
            "present",
            "input_ids",
            "attention_mask",
            CACHED_FEATURES,
        }


def test_a_catalog_is_read_once_by_the_same_weights(
    bundle: EncoderBundle, shop: Catalog, passes: list[int]
) -> None:
    cache_frozen_features(bundle.encoder, bundle.content_loader(shop), progress=False)
    assert sum(passes) >= shop.num_items - 10
    passes.clear()
    cache_frozen_features(bundle.encoder, bundle.content_loader(shop), progress=False)
    assert not passes
    with torch.no_grad():
        bundle.encoder.towers["text"].embeddings.word_embeddings.weight[7, 0] += 1  # type: ignore[union-attr]
    fresh, kept = bundle.content_loader(shop), bundle.content_loader(shop)
    cache_frozen_features(bundle.encoder, kept, progress=False)
    assert passes, "other weights say something else"
    items = np.arange(shop.num_items)
    torch.testing.assert_close(
        vectors(bundle, kept, items), vectors(bundle, fresh, items), atol=1e-5, rtol=1e-5
    )


def test_another_interaction_reads_no_item_and_decodes_no_picture_again(
    demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(demo_world / "home", tmp_path / "home")
    config = CatalogConfig(path=str(tmp_path / "home"))

    def read(catalog: Catalog) -> None:
        torch.manual_seed(0)
        bundle = new_encoder(ENCODER, catalog)
        cache_frozen_features(bundle.encoder, bundle.content_loader(catalog), progress=False)

    first = load_catalog(config)
    read(first)
    table = next((tmp_path / "home").glob("interactions.*"))
    assert table.suffix == ".parquet"
    rows = parquet.read_table(table)
    parquet.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), table)
    second = load_catalog(config)
    assert len(second.interactions) == len(first.interactions) + 1
    passes.clear()
    monkeypatch.setattr("pretrain.modalities.image.read_image", None)
    read(second)
    assert not passes


def test_a_stopped_fill_of_the_cache_resumes(
    bundle: EncoderBundle, shop: Catalog, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "BLOCK", 16)
    blocks = frozen.length_sorted_batches
    block_starts: list[int] = []

    def stopped(loader: ItemContentLoader, items: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
        block_starts.append(int(items[0]))
        if len(block_starts) == 3:
            raise KeyboardInterrupt
        return blocks(loader, items, tokens)

    monkeypatch.setattr(frozen, "length_sorted_batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        cache_frozen_features(bundle.encoder, bundle.content_loader(shop), progress=False)
    fresh, kept = bundle.content_loader(shop), bundle.content_loader(shop)
    cache_frozen_features(bundle.encoder, kept, progress=False)
    assert block_starts[:4] == [0, 16, 32, 32]
    items = np.arange(shop.num_items)
    torch.testing.assert_close(
        vectors(bundle, kept, items), vectors(bundle, fresh, items), atol=1e-5, rtol=1e-5
    )


def test_towers_that_learn_are_asked_each_time(shop: Catalog) -> None:
    assert ENCODER.text is not None
    for change in ({"frozen": False}, {"lora_rank": 2}):
        bundle = new_encoder(replace(ENCODER, text=replace(ENCODER.text, **change)), shop)
        assert frozen_towers(bundle.encoder) == []
    bundle.encoder.requires_grad_(False)
    assert frozen_towers(bundle.encoder) == ["text", "image"]
    assert frozen_towers(bundle.encoder, without_text=True) == ["image"]


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_training_learns_the_same_from_it(
    num_micro_batches: int,
    shop: Catalog,
    tmp_path: Path,
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(shop.folder)),
        encoder=ENCODER,
        objectives=ObjectivesConfig(bag_of_words=0.1),
        data=PretrainDataConfig(
            rows=4, row_length=8, max_broken=0.2, num_micro_batches=num_micro_batches
        ),
        trainer=TrainerConfig(max_steps=4, log_every=1, progress=False),
    )
    run_pretraining(config, tmp_path / "kept", build_trainer)
    once = sum(passes)
    passes.clear()
    monkeypatch.setattr("pretrain.run.cache_frozen_features", lambda *_, **__: None)
    run_pretraining(config, tmp_path / "asked", build_trainer)
    assert once <= shop.num_items < sum(passes)
    curves = [
        json.loads((tmp_path / name / "curves.json").read_text())["loss"]
        for name in ("kept", "asked")
    ]
    np.testing.assert_allclose(*curves, rtol=1e-4)
