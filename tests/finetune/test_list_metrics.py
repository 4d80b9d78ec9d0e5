"""List metrics equal their formulas, one list at a time."""

import numpy as np
import pytest
import torch

from finetune.evaluate import rank_targets
from finetune.list_metrics import ListMetrics
from tests.finetune.test_evaluate import NUM_ITEMS, world


def counts_and_categories() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 40, NUM_ITEMS)
    return counts, np.where(rng.random(NUM_ITEMS) < 0.2, -1, rng.integers(0, 4, NUM_ITEMS))


def test_list_metrics_equal_their_formulas_one_by_one() -> None:
    catalog, targets = world()
    counts, categories = counts_and_categories()
    scores = torch.rand(30, NUM_ITEMS)
    list_metrics = ListMetrics(counts, 60, categories)
    ranking = rank_targets(
        lambda indices, part: scores[indices, part],
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


def test_without_categories_there_are_no_category_metrics() -> None:
    assert ListMetrics(np.ones(5, dtype=np.int64), 3, np.full(5, -1)).names == [
        "arp@10",
        "aplt@10",
        "epc@10",
        "efd@10",
    ]
