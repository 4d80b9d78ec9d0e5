"""Full ranking by counting: the target's place among all items, and the ten that come first.

Protocol, the same for every arm and baseline: every item of the catalog is a candidate except those
already in the person's history; equal scores are ordered by a fixed pseudo-random key, which favours
nobody. Nothing of size [people × items] is held: scores live one chunk of people × one chunk of items
at a time.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Targets, target_rows
from finetune.metrics import LIST_LENGTH, ListMeasures, Ranking, metric_values
from finetune.statistics import Interval, mean_interval

ScoreChunk = Callable[[Tensor, slice], Tensor]
"""(people's rows int (b,), slice of items) → scores (b, items in the slice)."""


def tie_keys(num_items: int) -> NDArray[np.int64]:
    """A fixed order among equals: int64 (num_items,), a permutation."""
    return np.random.default_rng(20_011).permutation(num_items)


@torch.no_grad()
def rank_targets(
    score: ScoreChunk,
    catalog: Catalog,
    targets: Targets,
    *,
    measures: ListMeasures | None = None,
    people_chunk: int = 256,
    items_chunk: int = 4_096,
) -> Ranking:
    """Places of `targets` among the catalog's items by `score`; with `measures`, also what lists hold.

    Chunks are small enough for a CPU's caches; a `score` that works long for each call wants wide ones.
    """
    keys = torch.from_numpy(tie_keys(catalog.num_items))
    ranks = np.empty(len(targets.users), dtype=np.int64)
    candidates = np.empty(len(targets.users), dtype=np.int64)
    shown = np.zeros(catalog.num_items, dtype=np.int64)
    names = [] if measures is None else measures.names
    lists = {name: np.empty(len(targets.users)) for name in names}
    offsets, items = catalog.interactions.offsets, catalog.interactions.items
    # People of neighbouring targets together: few chunks of items then hold all of their targets.
    order = np.argsort(items[target_rows(catalog.interactions, targets)], kind="stable")
    for start in range(0, len(order), people_chunk):
        rows = order[start : start + people_chunk]
        begins = offsets[targets.users[rows]]
        ends = begins + targets.lengths[rows]
        wanted = torch.from_numpy(items[begins + targets.positions[rows]].astype(np.int64))
        seen_rows, seen_items = _seen(items, begins, ends)
        people = torch.from_numpy(rows)
        target_scores = _scores_of(score, people, wanted, items_chunk, catalog.num_items)
        better = torch.zeros(len(rows), dtype=torch.int64)
        best_scores = torch.full((len(rows), LIST_LENGTH), float("-inf"))
        best_items = torch.zeros((len(rows), LIST_LENGTH), dtype=torch.int64)
        for first in range(0, catalog.num_items, items_chunk):
            part = slice(first, min(first + items_chunk, catalog.num_items))
            scores = score(people, part).clone()  # (people, items in part)
            inside = (seen_items >= part.start) & (seen_items < part.stop)
            # A target already in the history cannot be told from the copy that was seen; it stays.
            inside &= seen_items != wanted[seen_rows]
            scores[seen_rows[inside], seen_items[inside] - part.start] = float("-inf")
            better += _ahead(scores, target_scores, keys[part], keys[wanted])
            # Few chunks hold anything for a list that is already good.
            rising = (scores.amax(dim=1) > best_scores[:, -1]).nonzero().squeeze(1)
            top_scores, top = scores[rising].topk(min(LIST_LENGTH, scores.shape[1]), dim=1)
            joined = torch.cat([best_scores[rising], top_scores], 1)
            items_joined = torch.cat([best_items[rising], top + part.start], 1)
            best_scores[rising], places = joined.topk(LIST_LENGTH, dim=1)
            best_items[rising] = items_joined.gather(1, places)
        ranks[rows] = better.numpy() + 1
        seen = np.unique(np.stack([seen_rows.numpy(), seen_items.numpy()]), axis=1)
        others = seen[1] != wanted.numpy()[seen[0]]
        owned = np.bincount(seen[0][others], minlength=len(rows))
        candidates[rows] = catalog.num_items - owned
        listed = torch.where(torch.isfinite(best_scores), best_items, -1).numpy()
        shown += np.bincount(listed[listed >= 0], minlength=catalog.num_items)
        if measures is not None:
            of_lists = measures.measure(listed, seen_rows.numpy(), seen_items.numpy())
            for name, values in of_lists.items():
                lists[name][rows] = values
    return Ranking(ranks, shown, candidates, lists)


def _ahead(scores: Tensor, wanted: Tensor, keys: Tensor, wanted_keys: Tensor) -> Tensor:
    """How many of `scores` (b, n) stand before `wanted` (b,), equals by their keys (n,): int (b,)."""
    threshold = wanted.unsqueeze(1)
    # Sums of floats, exact up to 2²⁴, are several times faster than those of truth values.
    flags = torch.empty(scores.shape)
    ahead = torch.gt(scores, threshold, out=flags).sum(dim=1).long()
    tied = torch.eq(scores, threshold, out=flags).sum(dim=1).nonzero().squeeze(1)
    if len(tied):
        equal = flags[tied].bool() & (keys < wanted_keys[tied].unsqueeze(1))
        ahead[tied] += equal.sum(dim=1)
    return ahead


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


def ndcg_interval(ranks: NDArray[np.int64], k: int = 10) -> Interval:
    """Mean NDCG@k with its interval over people."""
    return mean_interval(metric_values(ranks)[f"ndcg@{k}"])
