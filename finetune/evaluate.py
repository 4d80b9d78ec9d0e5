"""Full ranking by counting: the target's place among all items, and the ten that come first.

Protocol, the same for every arm and baseline: every item of the catalog is a candidate except those
already in the user's history, unless the split says `repeats: rank` (see `catalog.config.SplitConfig`);
equal scores are ordered by a fixed pseudo-random key, which favours nobody, in ranks and in lists. A
score that is not finite is an error: compared with nan, everything else would count as worse. Nothing
of size [users × items] is held: scores live one chunk of users × one chunk of items at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.progress import track
from catalog.splits import Split, Targets, target_rows
from finetune.metrics import LIST_LENGTH, MISSED, ListMeasures, Ranking, metric_values
from finetune.statistics import Interval, mean_interval

ScoreChunk = Callable[[Tensor, slice], Tensor]
"""(people's rows int (b,), slice of items) → finite scores (b, items in the slice)."""


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
    seen_excluded: bool
    """Items of the history are no candidates (`repeats` is drop or mask)."""

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
            seen_excluded=targets.repeats != "rank",
        )

    @property
    def excluded(self) -> tuple[Tensor, Tensor]:
        """Pairs (row of the chunk, item), int64 (e,) each, that are no candidates."""
        end = len(self.seen_rows) if self.seen_excluded else 0
        return self.seen_rows[:end], self.seen_items[:end]

    @property
    def missed(self) -> Tensor:
        """bool (b,): whose target is no candidate, as it is in their history."""
        rows, items = self.excluded
        found = torch.zeros(len(self.wanted), dtype=torch.bool)
        found[rows[items == self.wanted[rows]]] = True
        return found


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
    scored = _checked(score, catalog, targets)
    # People of neighbouring targets together: few chunks of items then hold all of their targets.
    wanted_items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    order = np.argsort(wanted_items, kind="stable")
    for start in track(range(0, len(order), people_chunk), "Ranking", shown=False):
        chunk = People.of(catalog, targets, order[start : start + people_chunk])
        people, wanted = torch.from_numpy(chunk.rows), chunk.wanted
        excluded_rows, excluded_items = chunk.excluded
        target_scores = _scores_of(scored, people, wanted, items_chunk, catalog.num_items)
        better = torch.zeros(len(people), dtype=torch.int64)
        best_scores = torch.full((len(people), LIST_LENGTH), float("-inf"))
        best_items = torch.zeros((len(people), LIST_LENGTH), dtype=torch.int64)
        for first in range(0, catalog.num_items, items_chunk):
            part = slice(first, min(first + items_chunk, catalog.num_items))
            scores = scored(people, part).clone()  # (people, items in part)
            inside = (excluded_items >= part.start) & (excluded_items < part.stop)
            places = excluded_items[inside] - part.start
            scores[excluded_rows[inside], places] = float("-inf")
            better += _ahead(scores, target_scores, keys[part], keys[wanted])
            # Few chunks hold anything for a list that is already good.
            rising = (scores.amax(dim=1) >= best_scores[:, -1]).nonzero().squeeze(1)
            top_scores, top = best_first(scores[rising], keys[part], LIST_LENGTH)
            joined = torch.cat([best_scores[rising], top_scores], 1)
            items_joined = torch.cat([best_items[rising], top + part.start], 1)
            best_scores[rising], places = best_first(joined, keys[items_joined], LIST_LENGTH)
            best_items[rising] = items_joined.gather(1, places)
        listed = torch.where(torch.isfinite(best_scores), best_items, -1)
        kept.add(chunk, better + 1, listed)
    return kept.ranking


def best_first(scores: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of `scores` (b, n), equals by their `keys`, int (n,) or (b, n).

    Returns scores and places, (b, min(k, n)) each. topk alone leaves open which of equals it takes.
    """
    keys = keys.expand_as(scores)
    size = scores.shape[1]
    values, places = scores.topk(min(k + 1, size), dim=1)
    if size > k:
        cut = (
            (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        )  # equals on both sides of the cut
        values, places = values[:, :k], places[:, :k]
        if len(cut):
            by_key = keys[cut].argsort(dim=1)
            ordered = scores[cut].gather(1, by_key)
            some, order = ordered.sort(dim=1, descending=True, stable=True)
            values[cut], places[cut] = some[:, :k], by_key.gather(1, order[:, :k])
    places = places.gather(1, keys.gather(1, places).argsort(dim=1))
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)


def _checked(score: ScoreChunk, catalog: Catalog, targets: Targets) -> ScoreChunk:
    """`score`, which raises NonFiniteError where it returns anything else than finite scores."""

    def scored(people: Tensor, part: slice) -> Tensor:
        scores = score(people, part)
        # A sum is finite only if all its terms are, and faster than asking each.
        if scores.sum().isfinite():
            return scores
        strange = (~scores.isfinite()).nonzero()
        if len(strange):
            row, place = strange[0].tolist()
            item = catalog.items[part.start + place]["item_id"]
            user = catalog.user_ids[targets.users[int(people[row])]]
            raise NonFiniteError(
                f"the score of item {item!r} for user {str(user)!r} is {float(scores[row, place])}, so "
                "no ranking follows from it; look at what the model makes of this item and this history"
            )
        return scores

    return scored


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
        rows, items = chunk.excluded
        rows = (rows * len(self.ranking.shown) + items).unique().numpy() // len(self.ranking.shown)
        return len(self.ranking.shown) - np.bincount(rows, minlength=len(chunk.rows))

    def add(self, chunk: People, ranks: Tensor, listed: Tensor) -> None:
        """`ranks` (b,); `listed` (b, n ≥ 10): items, best first, -1 where a list is shorter."""
        found, tops = self.ranking, listed[:, :LIST_LENGTH].numpy()
        found.ranks[chunk.rows] = ranks.masked_fill(chunk.missed, MISSED).numpy()
        found.candidates[chunk.rows] = self.num_candidates(chunk)
        lists = tops[self.is_first[chunk.rows]]  # of several targets of one person the list is one
        found.shown += np.bincount(lists[lists >= 0], minlength=len(found.shown))
        if self.measures is not None:
            seen = chunk.seen_rows.numpy(), chunk.seen_items.numpy()
            for name, values in self.measures.measure(tops, *seen).items():
                found.lists[name][chunk.rows] = values


def check_test_targets(catalog: Catalog, split: Split) -> None:
    """Raises VitrineError where a split leaves nothing to test on: a mean of nothing is no figure."""
    if not len(split.test):
        raise VitrineError(
            f"the {split.config.kind} split of {catalog.name} has no test target whose user has "
            f"{split.config.min_history} or more interactions before it (split.min_history); lower that, "
            "or use another split.kind"
        )


def check_scores(scores: Tensor, first: int = 0) -> None:
    """Raises NonFiniteError where one of `scores` (…, n), of items from row `first` on, is not."""
    if not scores.sum().isfinite() and len(strange := (~scores.isfinite()).nonzero()):
        raise NonFiniteError(
            f"the score of item row {first + int(strange[0, -1])} is not finite, so no list follows "
            "from it; make the item vectors again"
        )


def first_cause(model: nn.Module) -> str:
    """Which weight of `model` is not finite, for an error that ends with it."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return (
                f"the weights {name} hold nan or infinity; train again, with a lower learning rate"
            )
    return "its weights are finite and its numbers overflow; use --trainer.precision 32-true"


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
