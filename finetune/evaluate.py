"""Full ranking by counting: the target's place among all items, and the metrics that follow.

Protocol, the same for every arm and baseline: every item of the catalog is a candidate except those
already in the person's history; equal scores are ordered by a fixed pseudo-random key, which favours
nobody. Nothing of size [people × items] is held: scores live one chunk of people × one chunk of items
at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Targets
from finetune.statistics import Interval, mean_interval

ScoreChunk = Callable[[Tensor, slice], Tensor]
"""(people's rows int (b,), slice of items) → scores (b, items in the slice)."""

CUTOFFS = (5, 10, 20)


@dataclass
class Ranking:
    """What evaluation keeps: one place per person, and how often each item was shown."""

    ranks: NDArray[np.int64]
    """(targets,): 1 is the best."""
    shown: NDArray[np.int64]
    """(num_items,): lists of ten it stood in."""


def tie_keys(num_items: int) -> NDArray[np.int64]:
    """A fixed order among equals: int64 (num_items,), a permutation."""
    return np.random.default_rng(20_011).permutation(num_items)


@torch.no_grad()
def rank_targets(
    score: ScoreChunk,
    catalog: Catalog,
    targets: Targets,
    *,
    people_chunk: int = 256,
    items_chunk: int = 16_384,
) -> Ranking:
    """Places of `targets` among the catalog's items by `score`."""
    keys = torch.from_numpy(tie_keys(catalog.num_items))
    ranks = np.empty(len(targets.users), dtype=np.int64)
    shown = np.zeros(catalog.num_items, dtype=np.int64)
    offsets, items = catalog.interactions.offsets, catalog.interactions.items
    for start in range(0, len(targets.users), people_chunk):
        rows = np.arange(start, min(start + people_chunk, len(targets.users)))
        begins = offsets[targets.users[rows]]
        ends = begins + targets.positions[rows]
        wanted = torch.from_numpy(items[ends].astype(np.int64))
        seen_rows, seen_items = _seen(items, begins, ends)
        people = torch.from_numpy(rows)
        target_scores = _scores_of(score, people, wanted, items_chunk, catalog.num_items)
        better = torch.zeros(len(rows), dtype=torch.int64)
        best_scores = torch.full((len(rows), 10), float("-inf"))
        best_items = torch.zeros((len(rows), 10), dtype=torch.int64)
        for first in range(0, catalog.num_items, items_chunk):
            part = slice(first, min(first + items_chunk, catalog.num_items))
            scores = score(people, part).clone()  # (people, items in part)
            inside = (seen_items >= part.start) & (seen_items < part.stop)
            # A target already in the history cannot be told from the copy that was seen; it stays.
            inside &= seen_items != wanted[seen_rows]
            scores[seen_rows[inside], seen_items[inside] - part.start] = float("-inf")
            ahead = scores > target_scores[:, None]
            tied = (scores == target_scores[:, None]) & (keys[part] < keys[wanted][:, None])
            better += (ahead | tied).sum(dim=1)
            width = min(10, scores.shape[1])
            top_scores, top = scores.topk(width, dim=1)
            joined = torch.cat([best_scores, top_scores], 1)
            candidates = torch.cat([best_items, top + part.start], 1)
            best_scores, order = joined.topk(10, dim=1)
            best_items = candidates.gather(1, order)
        ranks[rows] = better.numpy() + 1
        shown += np.bincount(
            best_items[torch.isfinite(best_scores)].numpy(), minlength=catalog.num_items
        )
    return Ranking(ranks, shown)


def _seen(
    items: NDArray[np.int32], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Pairs (row, item) of every history in the chunk."""
    lengths = ends - begins
    rows = np.repeat(np.arange(len(begins)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    seen = items[np.repeat(begins, lengths) + within].astype(np.int64)
    return torch.from_numpy(rows), torch.from_numpy(seen)


def _scores_of(
    score: ScoreChunk, people: Tensor, wanted: Tensor, items_chunk: int, num_items: int
) -> Tensor:
    """Each person's score of their own target, taken from the very chunks it will be compared with.

    Computed any other way it could differ in the last bit, and lose against itself.
    """
    found = torch.empty(len(people))
    for first in range(0, num_items, items_chunk):
        part = slice(first, min(first + items_chunk, num_items))
        here = (wanted >= part.start) & (wanted < part.stop)
        if here.any():
            scores = score(people, part)
            found[here] = (
                scores[here].gather(1, (wanted[here] - part.start).unsqueeze(1)).squeeze(1)
            )
    return found


def metric_values(ranks: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Per-target metrics, (targets,) each: one relevant item, so Recall@k is also the hit rate."""
    values = {"mrr": 1.0 / ranks}
    for k in CUTOFFS:
        hit = ranks <= k
        values[f"recall@{k}"] = hit.astype(np.float64)
        values[f"ndcg@{k}"] = np.where(hit, 1.0 / np.log2(ranks + 1), 0.0)
    return values


def summarise(ranking: Ranking, cold: NDArray[np.bool_]) -> dict[str, float]:
    """A flat table: metrics over all targets, over cold and warm ones, and coverage of lists of ten.

    `cold` bool (targets,): the target was never bought in training.
    """
    table: dict[str, float] = {
        "people": float(len(ranking.ranks)),
        "coverage@10": float((ranking.shown > 0).mean()),
    }
    for name, chosen in (("", slice(None)), ("cold/", cold), ("warm/", ~cold)):
        ranks = ranking.ranks[chosen]
        table[f"{name}targets"] = float(len(ranks))
        for metric, values in metric_values(ranks).items():
            table[f"{name}{metric}"] = float(values.mean()) if len(values) else float("nan")
    return table


def ndcg_interval(ranks: NDArray[np.int64], k: int = 10) -> Interval:
    """Mean NDCG@k with its interval over people."""
    return mean_interval(metric_values(ranks)[f"ndcg@{k}"])
