"""Ranking by counting equals sorting everything; metrics equal their formulas."""

import math
from pathlib import Path
from types import SimpleNamespace
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
from catalog.errors import NonFiniteError
from catalog.interactions import Interactions
from catalog.splits import Targets, make_split, target_rows
from finetune.evaluate import rank_lists, rank_targets
from finetune.list_metrics import ListMetrics
from finetune.metrics import MISSED, Ranking, gini, metric_values, summarize, target_slices
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


def test_what_lies_between_history_and_target_is_neither_seen_nor_left_out() -> None:
    catalog, targets = world()
    two = targets.take(targets.positions >= 2)
    hidden = Targets(two.users, two.positions, two.positions - 1)
    between = catalog.interactions.items[target_rows(catalog.interactions, two) - 1]
    scores = torch.zeros(len(two), NUM_ITEMS)
    scores[torch.arange(len(two)), torch.from_numpy(between.astype(np.int64))] = 1.0
    ranks = {
        name: rank_targets(lambda people, part: scores[people, part], catalog, asked)
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
        lambda people, part: scores[people, part],
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


def test_a_target_in_the_history_is_missed_where_seen_items_are_masked() -> None:
    catalog, targets = repeating("mask")
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(lambda people, part: scores[people, part], catalog, targets)
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
        lambda people, part: scores[people, part], catalog, targets, items_chunk=13
    )
    wanted = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    own = scores[torch.arange(30), torch.from_numpy(wanted.astype(np.int64))]
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

    def likes_what_was_seen(people: torch.Tensor, part: slice) -> torch.Tensor:
        scores = torch.rand(len(people), num_items, generator=torch.Generator().manual_seed(1))
        for row, person in enumerate(people.tolist()):
            scores[row, split.test.history(interactions, person).astype(np.int64)] += 1
        return scores[:, part]

    ranking = rank_targets(likes_what_was_seen, catalog, split.test, items_chunk=num_items)
    ndcg = metric_values(ranking.ranks, users=ranking.users)["ndcg@10"]
    candidates = num_items - length
    chance = (1 / np.log2(np.arange(10) + 2)).sum() / candidates
    chance *= 1 if repeats == "drop" else (~again).mean()
    assert ndcg.mean() == pytest.approx(chance, abs=4 * ndcg.std() / np.sqrt(len(ndcg)))


def test_lists_and_ranks_order_equals_by_the_same_keys() -> None:
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
            lambda people, part: scores[people, part],
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
    wanted = int(catalog.interactions.items[target_rows(catalog.interactions, targets)][4])
    scores[4, wanted] = strange
    with pytest.raises(
        NonFiniteError, match=rf"score of item 'i{wanted}' for user 'u4' is {strange}"
    ):
        rank_targets(lambda people, part: scores[people, part], catalog, targets, items_chunk=13)


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


def test_several_targets_of_one_person_equal_torchmetrics_and_their_formulas() -> None:
    catalog, targets = several_each()
    people = np.unique(targets.users)
    scores = torch.rand(30, NUM_ITEMS)
    whose = torch.from_numpy(targets.users.astype(np.int64))
    ranking = rank_targets(
        lambda rows, part: scores[whose[rows], part], catalog, targets, user_batch_size=7
    )
    assert ranking.users.tolist() == targets.users.tolist()
    assert ranking.exposure.sum() == len(people) * 10, "each person's list counts once"
    mixed = np.random.default_rng(0).permutation(len(targets))
    values = metric_values(
        ranking.ranks[mixed], ranking.num_candidates[mixed], users=targets.users[mixed]
    )
    interactions = catalog.interactions
    wanted = interactions.items[target_rows(interactions, targets)]
    for place, user in enumerate(people):
        mine = np.flatnonzero(targets.users == user)
        history = targets.history(interactions, mine[0]).tolist()
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        told = scores[user, candidates]
        is_target = torch.tensor([item in wanted[mine] for item in candidates])
        theirs = {
            "mrr": retrieval_reciprocal_rank(told, is_target),
            "auc": binary_auroc(told, is_target.int()),
        }
        order = told.argsort(descending=True)
        hits = is_target[order].float()
        for k in (5, 10, 20):
            theirs[f"recall@{k}"] = retrieval_recall(told, is_target, top_k=k)
            theirs[f"hit@{k}"] = retrieval_hit_rate(told, is_target, top_k=k)
            theirs[f"precision@{k}"] = retrieval_precision(told, is_target, top_k=k)
            theirs[f"ndcg@{k}"] = retrieval_normalized_dcg(told, is_target, top_k=k)
            precisions = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
            found = (precisions * hits)[:k].sum()
            theirs[f"map@{k}"] = found / min(k, len(mine))
        assert set(theirs) == set(values)
        for name, value in theirs.items():
            assert values[name][place] == pytest.approx(value.item(), abs=1e-6), name


def test_slices_of_several_targets_are_means_over_the_people_in_them() -> None:
    people = np.array([0, 0, 0, 4, 4], dtype=np.int32)
    ranking = Ranking(
        people,
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


def counts_and_categories() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 40, NUM_ITEMS)
    return counts, np.where(rng.random(NUM_ITEMS) < 0.2, -1, rng.integers(0, 4, NUM_ITEMS))


def test_what_lists_hold_equals_their_formulas_one_by_one() -> None:
    catalog, targets = world()
    counts, categories = counts_and_categories()
    scores = torch.rand(30, NUM_ITEMS)
    list_metrics = ListMetrics(counts, 60, categories)
    ranking = rank_targets(
        lambda people, part: scores[people, part],
        catalog,
        targets,
        list_metrics=list_metrics,
        user_batch_size=7,
        items_chunk=13,
    )
    head = np.argsort(-counts, kind="stable")[: NUM_ITEMS // 5].tolist()
    shown = np.zeros(NUM_ITEMS)
    for row, user in enumerate(targets.users):
        begin = catalog.interactions.offsets[user]
        history = catalog.interactions.items[begin : begin + targets.positions[row]].tolist()
        candidates = [item for item in range(NUM_ITEMS) if item not in history]
        assert ranking.num_candidates[row] == len(candidates)
        best = sorted(candidates, key=lambda item: -float(scores[row, item]))[:10]
        shown[best] += 1
        expected = {
            "arp@10": np.mean([counts[i] for i in best]),
            "aplt@10": np.mean([i not in head for i in best]),
            "epc@10": np.mean([1 - min(counts[i] / 60, 1) for i in best]),
            "efd@10": np.mean([-np.log2(max(counts[i], 1) / counts.sum()) for i in best]),
        }
        known = [categories[i] for i in best if categories[i] >= 0]
        pairs = [(a, b) for n, a in enumerate(known) for b in known[n + 1 :]]
        expected["diversity@10"] = np.mean([a != b for a, b in pairs])
        liked = [categories[i] for i in history if categories[i] >= 0]
        expected["miscalibration@10"] = sum(
            (p := liked.count(c) / len(liked))
            * np.log(p / (0.99 * known.count(c) / len(known) + 0.01 * p))
            for c in set(liked)
        )
        if not liked:
            expected["miscalibration@10"] = np.nan
        for name, value in expected.items():
            assert ranking.list_metrics[name][row] == pytest.approx(value, nan_ok=True), name
    np.testing.assert_array_equal(ranking.exposure, shown)
    assert set(ranking.list_metrics) == set(expected)


def test_gini_equals_the_mean_difference_of_all_pairs() -> None:
    shown = np.array([0, 3, 3, 10, 1])
    pairs = np.abs(shown[:, None] - shown).sum()
    assert gini(shown) == pytest.approx(pairs / (2 * 5 * 5 * shown.mean()))
    assert gini(np.array([4, 4, 4])) == pytest.approx(0)
    assert np.isnan(gini(np.zeros(3, dtype=np.int64)))


def test_without_categories_nothing_is_said_of_them() -> None:
    assert ListMetrics(np.ones(5, dtype=np.int64), 3, np.full(5, -1)).names == [
        "arp@10",
        "aplt@10",
        "epc@10",
        "efd@10",
    ]


def test_slices_hold_the_targets_they_name() -> None:
    catalog, targets = world()
    scores = torch.rand(30, NUM_ITEMS)
    ranking = rank_targets(lambda people, part: scores[people, part], catalog, targets)
    cold = np.zeros(30, dtype=bool)
    cold[:4] = True
    table = summarize(ranking, {"cold": cold, "warm": ~cold})
    assert table["cold/targets"] == 4
    assert table["warm/targets"] == 26
    assert table["cold/mrr"] == pytest.approx((1 / ranking.ranks[:4]).mean())


def test_means_leave_out_what_cannot_be_measured() -> None:
    ones = np.ones(2, dtype=np.int64)
    people, shown = np.arange(2, dtype=np.int32), np.ones(3, dtype=np.int64)
    ranking = Ranking(people, ones, shown, ones * 3, {"x": np.array([np.nan, 4.0])})
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
