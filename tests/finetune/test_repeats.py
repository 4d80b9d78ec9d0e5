"""Groceries: users buy what they bought before. What each protocol says of that, and what is served."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import make_split
from finetune.ann_index import AnnIndex
from finetune.baselines.run import run_baseline
from finetune.config import FinetuneConfig, FinetuneDataConfig, MatrixFactorizationConfig
from finetune.evaluate_artifact import evaluate_recommender
from finetune.ranker import load_ranker
from finetune.recommendations import recommend
from finetune.run import run_finetuning
from finetune.semantic_ids.artifact import load_semantic_ranker
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.run import run_semantic_ids
from launch.trainer import build_trainer
from pretrain.config import OptimizerConfig, SequenceConfig, TrainerConfig
from tests.finetune.test_odd_domains import write_shop

STAPLES = 3
NUM_ITEMS = 30
RANK = SplitConfig(kind="leave-one-out", repeats="rank")


@pytest.fixture(scope="module")
def groceries(tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """Everybody takes their three staples by turns; now and then, last of all, something new."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(80):
        staples = rng.choice(NUM_ITEMS, STAPLES, replace=False)
        items = [int(staples[step % STAPLES]) for step in range(9)]
        if user % 8 == 0:
            items[-1] = int(rng.choice(np.setdiff1d(np.arange(NUM_ITEMS), staples)))
        rows += [(f"p{user}", f"i{item}", step) for step, item in enumerate(items)]
    shop = write_shop(tmp_path_factory.mktemp("groceries") / "shop", NUM_ITEMS, rows)
    return FinetuneConfig(
        catalog=CatalogConfig(path=str(shop)),
        split=RANK,
        transfer="scratch",
        features="id",
        width=16,
        sequence=SequenceConfig(layers=1, heads=2, max_history=6),
        data=FinetuneDataConfig(rows=16),
        optimizer=OptimizerConfig(learning_rate=0.02),
        trainer=TrainerConfig(max_steps=60, progress=False),
        validate_every=30,
    )


@pytest.fixture(scope="module")
def recommender(groceries: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_finetuning(groceries, tmp_path_factory.mktemp("runs") / "id", build_trainer)


def test_a_grocery_catalog_is_ranked_and_recommended_with_repeats(
    groceries: FinetuneConfig, recommender: Path
) -> None:
    table = evaluate_recommender(recommender)
    assert table["targets"] == 80
    assert (table["repeated/targets"], table["new/targets"]) == (70, 10)
    assert table["repeated/recall@5"] > 0.95
    assert table["new/recall@5"] < 0.4
    assert table == pytest.approx(
        {
            name.removeprefix("test/"): value
            for name, value in open_artifact(recommender).manifest["metrics"].items()
            if name.startswith("test/") and name.removeprefix("test/") in table
        }
    )
    catalog = load_catalog(groceries.catalog)
    shop, served = load_ranker(recommender, catalog), []
    for user in range(80):
        history = catalog.interactions.history(user)
        best = [item for item, _ in shop.rank(history, STAPLES)]
        served.append(np.isin(best, history).mean())
    assert np.mean(served) > 0.7  # 0.1 by chance, 0 without repeats
    listed = recommend(recommender, user="p1", k=STAPLES).item_ids
    assert {catalog.item_index(item) for item in listed} & set(catalog.interactions.history(1))


@pytest.mark.parametrize("repeats", ["drop", "mask"])
def test_the_same_recommender_under_the_other_protocols(
    repeats: str, groceries: FinetuneConfig, recommender: Path
) -> None:
    catalog = load_catalog(groceries.catalog)
    split = make_split(catalog, replace(RANK, repeats=repeats))  # pyright: ignore[reportArgumentType]
    ranking = load_ranker(recommender, catalog).rank_targets(catalog, split.test)
    assert len(split.test) == (10 if repeats == "drop" else 80)
    assert (ranking.num_candidates <= NUM_ITEMS - STAPLES).all()
    assert (ranking.ranks < NUM_ITEMS).sum() == 10


def test_a_list_without_repeats_holds_nothing_the_user_has(
    groceries: FinetuneConfig, recommender: Path
) -> None:
    catalog = load_catalog(groceries.catalog)
    shop, history = load_ranker(recommender, catalog), catalog.interactions.history(1)
    proposes = type("All", (), {"search": lambda _, s, n: (None, np.arange(n)[None])})()
    for repeats in (True, False):
        shop.repeats = repeats
        found = [item for item, _ in shop.rank(history, NUM_ITEMS)]
        assert [item for item, _ in AnnIndex(proposes, shop).rank(history, NUM_ITEMS)] == found
        assert set(history.tolist()) <= set(found) if repeats else not set(history) & set(found)
        assert len(found) == NUM_ITEMS - (0 if repeats else STAPLES)


@pytest.mark.parametrize("model", ["popularity", "item-knn", "bpr-mf"])
def test_baselines_follow_the_protocol(
    model: str, groceries: FinetuneConfig, tmp_path: Path
) -> None:
    quick = MatrixFactorizationConfig(width=8, batch_size=64, max_epochs=1)
    config = replace(groceries, matrix_factorization=quick)
    for repeats, targets in (("rank", 80), ("mask", 80), ("drop", 10)):
        split = replace(RANK, repeats=repeats)  # pyright: ignore[reportArgumentType]
        output = run_baseline(
            model, replace(config, split=split), tmp_path / repeats, build_trainer
        )  # pyright: ignore[reportArgumentType]
        metrics = open_artifact(output).manifest["metrics"]
        ranks = np.load(output / "test_ranks.npy")
        assert (len(ranks), metrics["test/targets"]) == (targets, targets)
        assert (ranks > NUM_ITEMS).sum() == (70 if repeats == "mask" else 0)
        if repeats == "mask":
            assert metrics["test/repeated/recall@20"] == 0
            assert metrics["popularity/repeated/targets"] == 70


def test_semantic_ids_follow_the_protocol(
    groceries: FinetuneConfig, encoder: Path, tmp_path: Path
) -> None:
    config = replace(
        groceries,
        encoder=str(encoder),
        transfer="frozen",
        features="content",
        sequence=None,
        semantic_ids=SemanticIdConfig(
            num_levels=2,
            codebook_size=4,
            tokenizer_steps=5,
            beam_size=NUM_ITEMS,
            num_cold_candidates=0,
        ),
        trainer=replace(groceries.trainer, max_steps=2),
    )
    output = run_semantic_ids(config, tmp_path / "rank", build_trainer)
    assert np.load(output / "test_ranks.npy").max() <= NUM_ITEMS
    catalog = load_catalog(groceries.catalog)
    shop, history = load_semantic_ranker(output, catalog), catalog.interactions.history(1)
    assert set(history.tolist()) <= {item for item, _ in shop.rank(history, NUM_ITEMS)}
    split = replace(RANK, repeats="mask")
    output = run_semantic_ids(replace(config, split=split), tmp_path / "mask", build_trainer)
    assert (np.load(output / "test_ranks.npy") > NUM_ITEMS).sum() == 70
    assert not set(history) & {
        item for item, _ in load_semantic_ranker(output, catalog).rank(history, NUM_ITEMS)
    }
