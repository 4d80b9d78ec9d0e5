"""Projections begin by whitening what their towers say, of what training may read alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import (
    EncoderConfig,
    OptimizerConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.projection_init import initialize_projections, whiten
from pretrain.retrieval import hold_out
from pretrain.run import run_pretraining
from pretrain.towers.projection import Projection

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ENCODER = EncoderConfig(
    width=16,
    text=TowerConfig(
        config={"model_type": "bert", "intermediate_size": 64, **SMALL}, vocab_size=300
    ),
    image=TowerConfig(
        config={"model_type": "vit", "intermediate_size": 64, "patch_size": 16, **SMALL},
        image_size=32,
    ),
    sequence=SequenceConfig(heads=2),
)


@pytest.fixture(scope="module")
def shop(demo_world: Path) -> Catalog:
    return load_catalog(CatalogConfig(path=str(demo_world / "home")))


@torch.no_grad()
def common(bundle: EncoderBundle, shop: Catalog, items: np.ndarray) -> list[float]:
    """Length of the mean direction of each modality's vectors: 1 where all items are alike."""
    vectors = bundle.encoder.eval()(bundle.content_loader(shop).read(items))
    return [
        F.normalize(vectors.modality_embeddings[vectors.present[:, place], place], dim=-1)
        .mean(0)
        .norm()
        .item()
        for place in range(vectors.modality_embeddings.shape[1])
    ]


def test_items_stand_apart_in_every_modality_from_the_first_step(
    shop: Catalog, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    items = np.flatnonzero(~hold_out(shop, 0.02))
    assert min(common(new_encoder(ENCODER, shop), shop, items)) > 0.8, "as towers leave it"
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(shop.folder)),
        encoder=ENCODER,
        optimizer=OptimizerConfig(learning_rate=1e-9),
        data=PretrainDataConfig(max_broken=0.2),
        trainer=TrainerConfig(max_steps=1, progress=False),
    )
    bundle = EncoderBundle.load(run_pretraining(config, tmp_path / "encoder", build_trainer))
    assert max(common(bundle, shop, items)) < 0.2


def test_the_sample_is_read_of_the_given_items_alone_and_is_the_same_on_every_rank(
    shop: Catalog,
) -> None:
    weights = []
    for spoiled in (False, True):
        torch.manual_seed(0)
        bundle = new_encoder(ENCODER, shop)
        loader = bundle.content_loader(shop)
        given = np.arange(shop.num_items // 2)
        if spoiled:  # the others hold something else
            order = np.arange(shop.num_items)
            order[len(given) :] = 0
            loader.permutation = order
        torch.manual_seed(1)
        initialize_projections(bundle.encoder, loader, given, seed=3)
        assert bundle.encoder.training
        weights.append(bundle.encoder.projections.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


@pytest.mark.parametrize(("tower_width", "width"), [(8, 8), (8, 20), (20, 8)])
def test_what_comes_out_is_centred_and_equally_spread(tower_width: int, width: int) -> None:
    torch.manual_seed(0)
    loudness = torch.logspace(0, -0.9, tower_width)
    vectors = torch.randn(4000, tower_width) * loudness + 5
    projection = Projection(tower_width, width)
    whiten(projection, vectors, floor=0.0)
    out = projection.linear(vectors)
    torch.testing.assert_close(out.mean(0), torch.zeros(width), atol=1e-4, rtol=0)
    spread = torch.linalg.eigvalsh(torch.cov(out.T))
    kept = min(width, tower_width)
    torch.testing.assert_close(spread[-kept:], torch.ones(kept), atol=1e-3, rtol=0)
    assert spread[:-kept].abs().max().item() < 1e-3 if width > tower_width else True


@pytest.mark.parametrize("vectors", [torch.ones(0, 4), torch.ones(1, 4), torch.ones(9, 4)])
def test_where_nothing_can_be_estimated_the_projection_stays(vectors: torch.Tensor) -> None:
    projection = Projection(4, 6)
    before = projection.linear.weight.clone()
    whiten(projection, vectors)
    assert torch.equal(projection.linear.weight, before)


def test_a_tower_of_width_one_is_centred() -> None:
    projection = Projection(1, 3)
    whiten(projection, torch.tensor([[1.0], [3.0]]))
    assert projection.linear(torch.tensor([[2.0]])).abs().max().item() < 1e-6


def test_towers_are_left_as_they_were(shop: Catalog) -> None:
    bundle = new_encoder(ENCODER, shop)
    encoder = bundle.encoder
    before = {name: value.clone() for name, value in encoder.towers.state_dict().items()}
    initialize_projections(encoder, bundle.content_loader(shop), np.arange(20), seed=0)
    for name, value in encoder.towers.state_dict().items():
        assert torch.equal(value, before[name])
