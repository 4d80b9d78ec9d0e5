"""The baselines compute what their papers say, in blocks as at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.splits import Split, SplitConfig, make_split
from finetune.baselines import neighbours
from finetune.baselines.factorisation import Factorisation, Pairs
from finetune.baselines.neighbours import ItemNeighbours
from finetune.baselines.run import run_baseline
from finetune.config import FinetuneConfig, FinetuneDataConfig, Model, NeighboursConfig
from launch.trainer import build_trainer
from pretrain.config import OptimizerConfig, TrainerConfig


@pytest.fixture(scope="module")
def shop(demo_world: Path) -> Catalog:
    return load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))


@pytest.fixture(scope="module")
def split(shop: Catalog) -> Split:
    return make_split(shop, SplitConfig())


def taken(shop: Catalog, split: Split) -> np.ndarray:
    """Who took what in training, bool (num_users, num_items)."""
    matrix = np.zeros((shop.num_users, shop.num_items), dtype=bool)
    for user in range(shop.num_users):
        matrix[user, shop.interactions.history(user)[: split.train_end[user]]] = True
    return matrix


@pytest.mark.parametrize("dense_bytes", [2**26, 8 * 80 * 7])
def test_neighbours_are_those_of_the_whole_matrix(
    dense_bytes: int, shop: Catalog, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "DENSE_BYTES", dense_bytes)
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", dense_bytes // 100)
    fitted = ItemNeighbours.fit(shop, split, NeighboursConfig(k=6, shrink=2.0))
    matrix = taken(shop, split).astype(float)
    together = matrix.T @ matrix
    sizes = together.diagonal()
    cosines = together / (np.sqrt(sizes[:, None] * sizes) + 2.0)
    np.fill_diagonal(cosines, 0)
    best = -np.sort(-cosines, axis=1)[:, :6]
    np.testing.assert_allclose(fitted.similarities.numpy(), best, atol=1e-6)
    rows = np.arange(shop.num_items)[:, None]
    np.testing.assert_allclose(cosines[rows, fitted.items.numpy()], best, atol=1e-6)


@pytest.mark.numeric
def test_items_nobody_took_are_like_none_also_without_shrinkage(
    shop: Catalog, split: Split
) -> None:
    fitted = ItemNeighbours.fit(shop, split, NeighboursConfig(k=6, shrink=0.0))
    never = ~taken(shop, split).any(axis=0)
    assert never.any(), "otherwise this tests nothing"
    assert fitted.similarities[torch.from_numpy(never)].eq(0).all()
    assert fitted.similarities.isfinite().all()


def test_a_person_s_scores_are_sums_over_their_history(shop: Catalog, split: Split) -> None:
    fitted = ItemNeighbours.fit(shop, split, NeighboursConfig(shop.num_items, 2.0))
    score = fitted.scorer(shop, split.test)
    people = torch.arange(5)
    parts = [score(people, slice(0, 30)), score(people, slice(30, shop.num_items))]
    cosines = np.zeros((shop.num_items, shop.num_items))
    rows = np.arange(shop.num_items)[:, None]
    cosines[rows, fitted.items.numpy()] = fitted.similarities.numpy()
    for row in range(5):
        user, position = split.test.users[row], split.test.positions[row]
        history = np.unique(shop.interactions.history(user)[:position])
        expected = cosines[history].sum(axis=0)
        np.testing.assert_allclose(torch.cat(parts, 1)[row].numpy(), expected, atol=1e-5)


def test_pairs_are_taken_and_not_taken_and_a_function_of_the_draw(
    shop: Catalog, split: Split
) -> None:
    matrix = taken(shop, split)
    pairs = Pairs(shop, split, size=400, seed=3)
    users, items, others = pairs[7]
    assert matrix[users, items].all()
    assert not matrix[users, others].any()
    np.testing.assert_array_equal(pairs[7], Pairs(shop, split, 400, seed=3)[7])
    assert not np.array_equal(pairs[7], pairs[8])


@pytest.mark.parametrize("shows", [False, True])
def test_a_list_s_scores_are_the_pairs_scores(shop: Catalog, split: Split, shows: bool) -> None:
    features = torch.randn(shop.num_items, 5) if shows else None
    module = Factorisation(shop.num_users, shop.num_items, 8, OptimizerConfig(), features)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    known = split.train_end > 0
    score = module.scorer(split.test, known)
    with torch.no_grad():
        listed = score(torch.arange(4), slice(10, 20))
        for row in range(4):
            user = torch.full((10,), int(split.test.users[row]))
            alone = module.score(user, torch.arange(10, 20))
            if known[split.test.users[row]]:
                torch.testing.assert_close(listed[row], alone)
        stranger = module.scorer(split.test, np.zeros_like(known))(torch.arange(4), slice(0, 9))
    torch.testing.assert_close(stranger, stranger[:1].expand(4, -1))


@pytest.mark.parametrize("model", ["popularity", "item-knn", "bpr-mf"])
def test_a_baseline_leaves_its_ranking_behind(
    model: Model, demo_world: Path, tmp_path: Path
) -> None:
    config = FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        width=8,
        data=FinetuneDataConfig(rows=2),
        optimizer=OptimizerConfig(learning_rate=0.05),
        trainer=TrainerConfig(max_steps=60, progress=False),
        validate_every=20,
    )
    output = run_baseline(model, config, tmp_path / model, build_trainer)
    artifact = open_artifact(output, kind="baseline")
    metrics = artifact.manifest["metrics"]
    ranks = np.load(output / "test_ranks.npy")
    assert metrics["test/mrr"] == pytest.approx((1 / ranks).mean())
    assert metrics["trained_parameters"] == (0 if model != "bpr-mf" else metrics["parameters"])
    if model != "popularity":
        assert metrics["test/mrr"] != metrics["popularity/mrr"]
    json.dumps(metrics)
