"""Full ranking by counting: the target's place among all items, and the ten that come first.

Protocol, the same for every arm and baseline: every item of the catalog is a candidate except those
already in the person's history; equal scores are ordered by a fixed pseudo-random key, which favours
nobody. Nothing of size [people × items] is held: scores live one chunk of people × one chunk of items
at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.progress import track
from catalog.splits import Targets, target_rows
from finetune.metrics import LIST_LENGTH, ListMeasures, Ranking, metric_values
from finetune.statistics import Interval, mean_interval

ScoreChunk = Callable[[Tensor, slice], Tensor]
"""(people's rows int (b,), slice of items) → scores (b, items in the slice)."""


def tie_keys(num_items: int) -> NDArray[np.int64]:
    """A fixed order among equals: int64 (num_items,), a permutation."""
    return np.random.default_rng(20_011).permutation(num_items)


@dataclass(frozen=True, eq=False)
class People:
    """A chunk of the targets that are ranked together."""

    rows: NDArray[np.int64]
    """(b,): places among the targets."""
    histories: list[NDArray[np.int32]]
    """Items before the target, oldest first."""
    wanted: Tensor
    """int64 (b,): the targets' items."""
    seen_rows: Tensor
    """int64 (s,): row of the chunk, for every item of every history."""
    seen_items: Tensor
    """int64 (s,)."""

    @classmethod
    def of(cls, catalog: Catalog, targets: Targets, rows: NDArray[np.int64]) -> "People":
        interactions = catalog.interactions
        histories = [targets.history(interactions, row) for row in rows.tolist()]
        wanted = interactions.offsets[targets.users[rows]] + targets.positions[rows]
        lengths = [len(history) for history in histories]
        return cls(
            rows,
            histories,
            wanted=torch.from_numpy(interactions.items[wanted].astype(np.int64)),
            seen_rows=torch.from_numpy(np.repeat(np.arange(len(rows)), lengths)),
            seen_items=torch.from_numpy(np.concatenate(histories).astype(np.int64)),
        )

    @property
    def excluded(self) -> tuple[Tensor, Tensor]:
        """Pairs (row of the chunk, item) that are no candidates: the histories without the targets.

        A target already in the history cannot be told from the copy that was seen; it stays.
        """
        others = self.seen_items != self.wanted[self.seen_rows]
        return self.seen_rows[others], self.seen_items[others]


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
    kept = _Kept(catalog, targets, measures)
    # People of neighbouring targets together: few chunks of items then hold all of their targets.
    wanted_items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    order = np.argsort(wanted_items, kind="stable")
    for start in track(range(0, len(order), people_chunk), "Ranking", shown=False):
        chunk = People.of(catalog, targets, order[start : start + people_chunk])
        people, wanted = torch.from_numpy(chunk.rows), chunk.wanted
        excluded_rows, excluded_items = chunk.excluded
        target_scores = _scores_of(score, people, wanted, items_chunk, catalog.num_items)
        better = torch.zeros(len(people), dtype=torch.int64)
        best_scores = torch.full((len(people), LIST_LENGTH), float("-inf"))
        best_items = torch.zeros((len(people), LIST_LENGTH), dtype=torch.int64)
        for first in range(0, catalog.num_items, items_chunk):
            part = slice(first, min(first + items_chunk, catalog.num_items))
            scores = score(people, part).clone()  # (people, items in part)
            inside = (excluded_items >= part.start) & (excluded_items < part.stop)
            places = excluded_items[inside] - part.start
            scores[excluded_rows[inside], places] = float("-inf")
            better += _ahead(scores, target_scores, keys[part], keys[wanted])
            # Few chunks hold anything for a list that is already good.
            rising = (scores.amax(dim=1) > best_scores[:, -1]).nonzero().squeeze(1)
            top_scores, top = scores[rising].topk(min(LIST_LENGTH, scores.shape[1]), dim=1)
            joined = torch.cat([best_scores[rising], top_scores], 1)
            items_joined = torch.cat([best_items[rising], top + part.start], 1)
            best_scores[rising], better_places = joined.topk(LIST_LENGTH, dim=1)
            best_items[rising] = items_joined.gather(1, better_places)
        listed = torch.where(torch.isfinite(best_scores), best_items, -1)
        kept.add(chunk, better + 1, listed)
    return kept.ranking


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


ListChunk = Callable[[People], Tensor]
"""A chunk of people → items, best first, none excluded: int64 (b, n), -1 where a list is shorter."""


@torch.no_grad()
def rank_listed(
    lists: ListChunk,
    catalog: Catalog,
    targets: Targets,
    *,
    measures: ListMeasures | None = None,
    people_chunk: int = 256,
    progress: bool = False,
) -> Ranking:
    """The same of what gives lists, not scores: a target that is not in its list stands last of all
    candidates, so that no figure gains by what a list leaves open."""
    kept = _Kept(catalog, targets, measures)
    for start in track(range(0, len(targets), people_chunk), "Ranking", shown=progress):
        rows = np.arange(start, min(start + people_chunk, len(targets)))
        chunk = People.of(catalog, targets, rows)
        listed = lists(chunk)
        found = listed == chunk.wanted.unsqueeze(1)
        last = torch.from_numpy(kept.num_candidates(chunk))
        ranks = torch.where(found.any(dim=1), found.int().argmax(dim=1) + 1, last)
        short = (0, max(0, LIST_LENGTH - listed.shape[1]))
        kept.add(chunk, ranks, F.pad(listed, short, value=-1))
    return kept.ranking


class _Kept:
    """What evaluation keeps of each chunk of people."""

    def __init__(self, catalog: Catalog, targets: Targets, measures: ListMeasures | None) -> None:
        self.measures = measures
        names = [] if measures is None else measures.names
        self.is_first = np.zeros(len(targets), dtype=bool)
        self.is_first[np.unique(targets.users, return_index=True)[1]] = True
        self.ranking = Ranking(
            people=targets.users,
            ranks=np.empty(len(targets), dtype=np.int64),
            shown=np.zeros(catalog.num_items, dtype=np.int64),
            candidates=np.empty(len(targets), dtype=np.int64),
            lists={name: np.empty(len(targets)) for name in names},
        )

    def num_candidates(self, chunk: People) -> NDArray[np.int64]:
        """Of each person, (b,): items that are not excluded."""
        rows, _ = torch.stack(chunk.excluded).unique(dim=1).numpy()
        return len(self.ranking.shown) - np.bincount(rows, minlength=len(chunk.rows))

    def add(self, chunk: People, ranks: Tensor, listed: Tensor) -> None:
        """`ranks` (b,); `listed` (b, n ≥ 10): items, best first, -1 where a list is shorter."""
        found, tops = self.ranking, listed[:, :LIST_LENGTH].numpy()
        found.ranks[chunk.rows] = ranks.numpy()
        found.candidates[chunk.rows] = self.num_candidates(chunk)
        lists = tops[self.is_first[chunk.rows]]  # of several targets of one person the list is one
        found.shown += np.bincount(lists[lists >= 0], minlength=len(found.shown))
        if self.measures is not None:
            seen = chunk.seen_rows.numpy(), chunk.seen_items.numpy()
            for name, values in self.measures.measure(tops, *seen).items():
                found.lists[name][chunk.rows] = values


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


def ndcg_interval(
    ranks: NDArray[np.int64], people: NDArray[np.integer] | None = None, k: int = 10
) -> Interval:
    """Mean NDCG@k with its interval over people (see `metric_values`)."""
    return mean_interval(metric_values(ranks, people=people)[f"ndcg@{k}"])
