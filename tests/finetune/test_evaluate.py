"""Ranking by counting equals sorting everything; metrics equal their formulas."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_reciprocal_rank

from catalog.splits import Targets
from finetune.evaluate import metric_values, rank_targets, summarise, tie_keys

NUM_ITEMS = 50


def world(num_users: int = 30) -> tuple[Any, Targets]:
    rng = np.random.default_rng(0)
    histories = [rng.permutation(NUM_ITEMS)[: rng.integers(2, 9)] for _ in range(num_users)]
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    interactions = SimpleNamespace(
        offsets=offsets, items=np.concatenate(histories).astype(np.int32)
    )
    positions = np.array([len(h) - 1 for h in histories], dtype=np.int32)
    catalog = SimpleNamespace(num_items=NUM_ITEMS, interactions=interactions)
    return catalog, Targets(np.arange(num_users, dtype=np.int32), positions)


def sorted_ranks(scores: torch.Tensor, catalog: Any, targets: Targets) -> list[int]:
    """The slow way: sort all candidates of each person."""
    keys = tie_keys(NUM_ITEMS)
    ranks = []
    for row, (user, position) in enumerate(zip(targets.users, targets.positions, strict=True)):
        begin = catalog.interactions.offsets[user]
        history = catalog.interactions.items[begin : begin + position].tolist()
        wanted = int(catalog.interactions.items[begin + position])
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        candidates.sort(key=lambda item: (-float(scores[row, item]), keys[item]))
        ranks.append(candidates.index(wanted) + 1)
    return ranks


@pytest.mark.parametrize(("people_chunk", "items_chunk"), [(256, 16_384), (7, 13), (1, 1)])
@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_counting_equals_sorting(people_chunk: int, items_chunk: int, levels: int) -> None:
    catalog, targets = world()
    scores = torch.randint(levels, (30, NUM_ITEMS)).float()  # 3 levels: nearly all are ties
    ranking = rank_targets(
        lambda people, part: scores[people, part],
        catalog,
        targets,
        people_chunk=people_chunk,
        items_chunk=items_chunk,
    )
    assert ranking.ranks.tolist() == sorted_ranks(scores, catalog, targets)
    assert ranking.shown.sum() == 30 * 10


def test_items_already_owned_are_no_candidates() -> None:
    catalog, targets = world()
    scores = torch.zeros(30, NUM_ITEMS)
    for row, user in enumerate(targets.users):
        begin = catalog.interactions.offsets[user]
        owned = catalog.interactions.items[begin : begin + targets.positions[row]]
        scores[row, owned] = 9.0
        scores[row, catalog.interactions.items[begin + targets.positions[row]]] = 5.0
    ranking = rank_targets(lambda people, part: scores[people, part], catalog, targets)
    assert (ranking.ranks == 1).all()


def test_metrics_equal_torchmetrics() -> None:
    ranks = np.array([1, 2, 3, 10, 11, 40])
    values = metric_values(ranks)
    for row, rank in enumerate(ranks):
        scores = torch.linspace(1, 0, NUM_ITEMS)
        target = torch.zeros(NUM_ITEMS, dtype=torch.bool)
        target[rank - 1] = True
        ndcg = retrieval_normalized_dcg(scores, target, top_k=10).item()
        assert values["ndcg@10"][row] == pytest.approx(ndcg, abs=1e-6)
        mrr = retrieval_reciprocal_rank(scores, target).item()
        assert values["mrr"][row] == pytest.approx(mrr, abs=1e-6)
    assert values["recall@10"].tolist() == [1, 1, 1, 1, 0, 0]


def test_slices_hold_the_targets_they_name() -> None:
    catalog, targets = world()
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(lambda people, part: scores[people, part], catalog, targets)
    cold = np.zeros(30, dtype=bool)
    cold[:4] = True
    table = summarise(ranking, cold)
    assert table["cold/targets"] == 4
    assert table["warm/targets"] == 26
    assert table["cold/mrr"] == pytest.approx((1 / ranking.ranks[:4]).mean())
