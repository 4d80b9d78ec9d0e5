"""Accuracy metrics equal torchmetrics and their formulas; slices hold the targets they name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import Targets, make_split, target_rows
from finetune.evaluate import rank_targets
from finetune.metrics import Ranking, gini, metric_values, summarize, target_slices
from tests.finetune.test_evaluate import NUM_ITEMS, world


@pytest.mark.parametrize("rank", [1, 2, 3, 5, 6, 10, 11, 20, 21, 49, 50])
def test_accuracy_equals_torchmetrics(rank: int) -> None:
    values = metric_values(np.array([rank]), np.array([NUM_ITEMS]))
    scores = torch.linspace(1, 0.1, NUM_ITEMS)
    target = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    target[rank - 1] = True
    theirs = {"mrr": retrieval_reciprocal_rank(scores, target)}
    for k in (5, 10, 20):
        theirs[f"recall@{k}"] = retrieval_recall(scores, target, top_k=k)
        assert theirs[f"recall@{k}"] == retrieval_hit_rate(scores, target, top_k=k)
        theirs[f"ndcg@{k}"] = retrieval_normalized_dcg(scores, target, top_k=k)
        theirs[f"map@{k}"] = retrieval_average_precision(scores, target, top_k=k)
    theirs["auc"] = binary_auroc(scores, target.int())
    assert set(theirs) == set(values)
    for name, value in theirs.items():
        assert np.float32(values[name][0]) == pytest.approx(value.item(), abs=1e-6), name  # float32


def several_each() -> tuple[Any, Targets]:
    """Everybody's last items are targets, up to six of them; their histories end before."""
    catalog, last = world()
    rng = np.random.default_rng(3)
    lengths = last.positions + 1
    numbers = np.minimum(rng.integers(1, 7, len(last)), lengths - 1)
    users = np.repeat(last.users, numbers)
    begins = np.repeat(lengths - numbers, numbers).astype(np.int32)
    within = np.arange(len(users)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    return catalog, Targets(users, (begins + within).astype(np.int32), begins)


def test_several_targets_per_user_equal_torchmetrics_and_their_formulas() -> None:
    catalog, targets = several_each()
    users = np.unique(targets.users)
    scores = torch.rand(30, NUM_ITEMS)
    whose = torch.from_numpy(targets.users.astype(np.int64))
    ranking = rank_targets(
        lambda rows, part: scores[whose[rows], part], catalog, targets, user_batch_size=7
    )
    assert ranking.users.tolist() == targets.users.tolist()
    assert ranking.exposure.sum() == len(users) * 10, "the list of each user counts once"
    mixed = np.random.default_rng(0).permutation(len(targets))
    values = metric_values(
        ranking.ranks[mixed], ranking.num_candidates[mixed], users=targets.users[mixed]
    )
    interactions = catalog.interactions
    target_items = interactions.items[target_rows(interactions, targets)]
    for place, user in enumerate(users):
        mine = np.flatnonzero(targets.users == user)
        history = targets.history(interactions, mine[0]).tolist()
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        candidate_scores = scores[user, candidates]
        is_target = torch.tensor([item in target_items[mine] for item in candidates])
        theirs = {
            "mrr": retrieval_reciprocal_rank(candidate_scores, is_target),
            "auc": binary_auroc(candidate_scores, is_target.int()),
        }
        order = candidate_scores.argsort(descending=True)
        hits = is_target[order].float()
        for k in (5, 10, 20):
            theirs[f"recall@{k}"] = retrieval_recall(candidate_scores, is_target, top_k=k)
            theirs[f"hit@{k}"] = retrieval_hit_rate(candidate_scores, is_target, top_k=k)
            theirs[f"precision@{k}"] = retrieval_precision(candidate_scores, is_target, top_k=k)
            theirs[f"ndcg@{k}"] = retrieval_normalized_dcg(candidate_scores, is_target, top_k=k)
            precisions = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
            found = (precisions * hits)[:k].sum()
            theirs[f"map@{k}"] = found / min(k, len(mine))
        assert set(theirs) == set(values)
        for name, value in theirs.items():
            assert values[name][place] == pytest.approx(value.item(), abs=1e-6), name


def test_slices_of_several_targets_are_means_over_their_users() -> None:
    users = np.array([0, 0, 0, 4, 4], dtype=np.int32)
    ranking = Ranking(
        users,
        np.array([1, 30, 2, 40, 3]),
        np.ones(50, dtype=np.int64),
        np.full(5, 50),
        {"x": np.array([1.0, 1.0, 1.0, 5.0, 5.0])},
    )
    first = np.array([True, True, False, True, False])
    table = summarize(ranking, {"first": first})
    assert (table["users"], table["targets"], table["first/targets"]) == (2, 5, 3)
    assert table["recall@5"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert table["first/recall@5"] == pytest.approx((1 / 2 + 0) / 2)
    assert table["x"] == table["first/x"] == 3


def test_one_candidate_is_ranked_without_fault() -> None:
    assert metric_values(np.array([1]), np.array([1]))["auc"].tolist() == [1.0]


def test_gini_equals_the_mean_difference_of_all_pairs() -> None:
    shown = np.array([0, 3, 3, 10, 1])
    pairs = np.abs(shown[:, None] - shown).sum()
    assert gini(shown) == pytest.approx(pairs / (2 * 5 * 5 * shown.mean()))
    assert gini(np.array([4, 4, 4])) == pytest.approx(0)
    assert np.isnan(gini(np.zeros(3, dtype=np.int64)))


def test_slices_hold_the_targets_they_name() -> None:
    catalog, targets = world()
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(lambda users, part: scores[users, part], catalog, targets)
    cold = np.zeros(30, dtype=bool)
    cold[:4] = True
    table = summarize(ranking, {"cold": cold, "warm": ~cold})
    assert table["cold/targets"] == 4
    assert table["warm/targets"] == 26
    assert table["cold/mrr"] == pytest.approx((1 / ranking.ranks[:4]).mean())


def test_means_leave_out_undefined_values() -> None:
    ones = np.ones(2, dtype=np.int64)
    users, shown = np.arange(2, dtype=np.int32), np.ones(3, dtype=np.int64)
    ranking = Ranking(users, ones, shown, ones * 3, {"x": np.array([np.nan, 4.0])})
    table = summarize(ranking, {"first": np.array([True, False])})
    assert table["x"] == 4
    assert np.isnan(table["first/x"])


def test_slices_of_a_real_catalog(demo_world: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))
    split = make_split(catalog, SplitConfig())
    found = target_slices(catalog, split, split.test)
    assert (found["warm"] ^ found["cold"]).all()
    assert (
        sum(found[name].astype(int) for name in ("few", "some", "many") if name in found) == 1
    ).all()
    items = [
        catalog.interactions.items[row] for row in target_rows(catalog.interactions, split.test)
    ]
    for name, column in (("without image", "image"), ("without text", "text")):
        rows = [catalog.items[int(i)] for i in items]
        lacks = [row[column] is None and (column == "image" or not row["title"]) for row in rows]
        if any(lacks):
            assert found[name].tolist() == lacks
    assert "without image" in found
