"""Ranking by counting equals sorting everything; metrics equal their formulas."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from catalog.config import SplitConfig
from catalog.errors import NonFiniteError
from catalog.interactions import Interactions
from catalog.splits import Targets, make_split, target_rows
from finetune.evaluate import rank_lists, rank_targets
from finetune.list_metrics import ListMetrics
from finetune.metrics import MISSED, metric_values
from finetune.tie_break import tie_keys

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
    """The reference: sorts all candidates of each user."""
    keys = tie_keys(NUM_ITEMS)
    ranks = []
    for row, (user, position) in enumerate(zip(targets.users, targets.positions, strict=True)):
        begin = catalog.interactions.offsets[user]
        history = catalog.interactions.items[begin : begin + position].tolist()
        target_items = int(catalog.interactions.items[begin + position])
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        candidates.sort(key=lambda item: (-float(scores[row, item]), keys[item]))
        ranks.append(candidates.index(target_items) + 1)
    return ranks


def test_what_lies_between_history_and_target_is_neither_seen_nor_left_out() -> None:
    catalog, targets = world()
    two = targets.take(targets.positions >= 2)
    hidden = Targets(two.users, two.positions, two.positions - 1)
    between = catalog.interactions.items[target_rows(catalog.interactions, two) - 1]
    scores = torch.zeros(len(two), NUM_ITEMS)
    scores[torch.arange(len(two)), torch.from_numpy(between.astype(np.int64))] = 1.0
    ranks = {
        name: rank_targets(lambda indices, part: scores[indices, part], catalog, asked)
        for name, asked in (("seen", two), ("hidden", hidden))
    }
    assert (ranks["hidden"].num_candidates == ranks["seen"].num_candidates + 1).all()
    assert (ranks["hidden"].ranks == ranks["seen"].ranks + 1).all()
    assert hidden.history(catalog.interactions, 0).tolist() == (
        two.history(catalog.interactions, 0)[:-1].tolist()
    )


@pytest.mark.parametrize(("user_batch_size", "items_chunk"), [(256, 16_384), (7, 13), (1, 1)])
@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_counting_equals_sorting(user_batch_size: int, items_chunk: int, levels: int) -> None:
    catalog, targets = world()
    scores = torch.randint(levels, (30, NUM_ITEMS)).float()  # 3 levels: nearly all are ties
    ranking = rank_targets(
        lambda indices, part: scores[indices, part],
        catalog,
        targets,
        user_batch_size=user_batch_size,
        items_chunk=items_chunk,
    )
    assert ranking.ranks.tolist() == sorted_ranks(scores, catalog, targets)
    assert ranking.exposure.sum() == 30 * 10


def repeating(repeats: str) -> tuple[Any, Targets]:
    """Everybody's target is the first item of their history."""
    catalog, targets = world()
    items = catalog.interactions.items.copy()
    begins = catalog.interactions.offsets[targets.users]
    items[begins + targets.positions] = items[begins]
    catalog.interactions.items = items
    return catalog, Targets(targets.users, targets.positions, None, repeats)


def test_a_target_in_the_history_is_missed_if_seen_items_are_masked() -> None:
    catalog, targets = repeating("mask")
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(lambda indices, part: scores[indices, part], catalog, targets)
    assert (ranking.ranks == MISSED).all()
    assert (ranking.num_candidates == NUM_ITEMS - targets.positions).all()
    values = metric_values(ranking.ranks, ranking.num_candidates, targets.users)
    assert all((of_metric == 0).all() for of_metric in values.values()), values
    everything = torch.arange(NUM_ITEMS).expand(30, -1)
    listed = rank_lists(lambda batch: everything[: len(batch.indices)], catalog, targets)
    assert (listed.ranks == MISSED).all()
    one = metric_values(np.array([MISSED, 1]), np.array([2, 2]), np.zeros(2, dtype=np.int32))
    assert one["recall@5"] == 0.5
    assert one["auc"] == 0.5


def test_items_of_the_history_are_candidates_where_repeats_are_ranked() -> None:
    catalog, targets = repeating("rank")
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(
        lambda indices, part: scores[indices, part], catalog, targets, items_chunk=13
    )
    target_items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    own = scores[torch.arange(30), torch.from_numpy(target_items.astype(np.int64))]
    assert ranking.ranks.tolist() == (1 + (scores > own.unsqueeze(1)).sum(dim=1)).tolist()
    assert (ranking.num_candidates == NUM_ITEMS).all()


@pytest.mark.parametrize("repeats", ["drop", "mask"])
def test_repeats_do_not_lift_a_ranking_by_chance(repeats: Any) -> None:
    """On noise a target of the history, left among candidates that lack the rest of it, gives itself away."""
    rng = np.random.default_rng(0)
    num_users, num_items, length = 4_000, 200, 60
    histories = np.stack([rng.permutation(num_items)[: length + 1] for _ in range(num_users)])
    again = rng.random(num_users) < 0.1
    histories[again, -1] = histories[again, 0]
    interactions = Interactions(
        offsets=np.arange(num_users + 1) * (length + 1),
        items=histories.ravel().astype(np.int32),
        times=np.tile(np.arange(length + 1), num_users),
    )
    catalog: Any = SimpleNamespace(
        num_items=num_items, num_users=num_users, interactions=interactions, name="noise"
    )
    split = make_split(catalog, SplitConfig(kind="leave-one-out", repeats=repeats))
    assert split.num_repeated["test"] == again.sum()
    assert len(split.test) == (num_users if repeats == "mask" else (~again).sum())

    def likes_what_was_seen(indices: torch.Tensor, part: slice) -> torch.Tensor:
        scores = torch.rand(len(indices), num_items, generator=torch.Generator().manual_seed(1))
        for row, person in enumerate(indices.tolist()):
            scores[row, split.test.history(interactions, person).astype(np.int64)] += 1
        return scores[:, part]

    ranking = rank_targets(likes_what_was_seen, catalog, split.test, items_chunk=num_items)
    ndcg = metric_values(ranking.ranks, users=ranking.users)["ndcg@10"]
    candidates = num_items - length
    chance = (1 / np.log2(np.arange(10) + 2)).sum() / candidates
    chance *= 1 if repeats == "drop" else (~again).mean()
    assert ndcg.mean() == pytest.approx(chance, abs=4 * ndcg.std() / np.sqrt(len(ndcg)))


def test_lists_and_ranks_break_ties_by_the_same_keys() -> None:
    catalog, targets = world()
    scores = torch.randint(2, (30, NUM_ITEMS)).float()
    listed: list[np.ndarray] = []

    class Lists(ListMetrics):
        def measure(self, lists: Any, *_: Any) -> dict[str, Any]:
            listed.append(lists)
            return {name: np.zeros(len(lists)) for name in self.names}

    list_metrics = Lists(np.ones(NUM_ITEMS, dtype=np.int64), 30, None)
    keys = tie_keys(NUM_ITEMS)
    for chunk in (NUM_ITEMS, 13, 3):
        listed.clear()
        rank_targets(
            lambda indices, part: scores[indices, part],
            catalog,
            targets.take(np.arange(1)),
            list_metrics=list_metrics,
            items_chunk=chunk,
        )
        history = targets.history(catalog.interactions, 0).tolist()
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        candidates.sort(key=lambda item: (-float(scores[0, item]), keys[item]))
        assert listed[0][0].tolist() == candidates[:10], chunk


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_item_and_user(strange: float) -> None:
    catalog, targets = world()
    catalog.items = [{"item_id": f"i{n}"} for n in range(NUM_ITEMS)]
    catalog.user_ids = np.array([f"u{n}" for n in range(30)])
    scores = torch.rand(30, NUM_ITEMS)
    target_items = int(catalog.interactions.items[target_rows(catalog.interactions, targets)][4])
    scores[4, target_items] = strange
    with pytest.raises(
        NonFiniteError, match=rf"score of item 'i{target_items}' for user 'u4' is {strange}"
    ):
        rank_targets(lambda indices, part: scores[indices, part], catalog, targets, items_chunk=13)


def test_items_already_owned_are_no_candidates() -> None:
    catalog, targets = world()
    scores = torch.zeros(30, NUM_ITEMS)
    for row, user in enumerate(targets.users):
        begin = catalog.interactions.offsets[user]
        owned = catalog.interactions.items[begin : begin + targets.positions[row]]
        scores[row, owned] = 9.0
        scores[row, catalog.interactions.items[begin + targets.positions[row]]] = 5.0
    ranking = rank_targets(lambda indices, part: scores[indices, part], catalog, targets)
    assert (ranking.ranks == 1).all()
