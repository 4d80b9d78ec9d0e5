"""Full ranking: the rank of each target among all candidate items, and the top ten of each list.

One protocol for every arm and baseline: every item of the catalog is a candidate except the items of the
user's history, unless the split sets `repeats: rank` (see `catalog.config.SplitConfig`). There is no
negative sampling. Ties are broken by a fixed pseudo-random key, the same in ranks and in lists. A score
that is not finite is an error: compared with nan, every other item would count as worse. Memory stays
below [users × items]: scores exist for one batch of users × one chunk of items at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.progress import track
from catalog.splits import Split, Targets, target_rows
from finetune.list_metrics import LIST_LENGTH, ListMetrics
from finetune.metrics import MISSED, Ranking, metric_values
from finetune.statistics import Interval, mean_interval
from finetune.tie_break import tie_keys, topk_with_tie_break

ScoreFunction = Callable[[Tensor, slice], Tensor]
"""(indices of targets int (b,), slice of items) → finite scores (b, items in the slice)."""


@dataclass(frozen=True, eq=False)
class TargetBatch:
    """A batch of targets that are ranked together."""

    indices: NDArray[np.int64]
    """(b,): positions in `Targets`."""
    histories: list[NDArray[np.int32]]
    """Items before the target, oldest first."""
    target_items: Tensor
    """int64 (b,): the item of each target."""
    history_rows: Tensor
    """int64 (s,): the row of the batch, for every item of every history."""
    history_items: Tensor
    """int64 (s,): the items of all histories."""
    masks_history: bool
    """Items of the history are not candidates (`repeats` is drop or mask)."""

    @classmethod
    def of(cls, catalog: Catalog, targets: Targets, indices: NDArray[np.int64]) -> "TargetBatch":
        interactions = catalog.interactions
        histories = [targets.history(interactions, index) for index in indices.tolist()]
        rows = interactions.offsets[targets.users[indices]] + targets.positions[indices]
        lengths = [len(history) for history in histories]
        return cls(
            indices,
            histories,
            target_items=torch.from_numpy(interactions.items[rows].astype(np.int64)),
            history_rows=torch.from_numpy(np.repeat(np.arange(len(indices)), lengths)),
            history_items=torch.from_numpy(np.concatenate(histories).astype(np.int64)),
            masks_history=targets.repeats != "rank",
        )

    @property
    def excluded(self) -> tuple[Tensor, Tensor]:
        """Pairs (row of the batch, item), int64 (e,) each, that are not candidates."""
        end = len(self.history_rows) if self.masks_history else 0
        return self.history_rows[:end], self.history_items[:end]

    @property
    def missed(self) -> Tensor:
        """bool (b,): the target itself is not a candidate, because the history contains it."""
        rows, items = self.excluded
        missed = torch.zeros(len(self.target_items), dtype=torch.bool)
        missed[rows[items == self.target_items[rows]]] = True
        return missed


@torch.no_grad()
def rank_targets(
    score: ScoreFunction,
    catalog: Catalog,
    targets: Targets,
    *,
    list_metrics: ListMetrics | None = None,
    user_batch_size: int = 256,
    items_chunk: int = 4_096,
) -> Ranking:
    """Full ranking: the rank of each of `targets` among the catalog's items by `score`.

    With `list_metrics`, also the metrics of each top-ten list. The chunk sizes fit a CPU's caches; a
    `score` with a high cost per call is faster with larger ones.
    """
    keys = torch.from_numpy(tie_keys(catalog.num_items))
    accumulator = RankingAccumulator(catalog, targets, list_metrics)
    score = _checked(score, catalog, targets)
    # Targets of neighbouring items share a batch: then few chunks of items contain all of its targets.
    target_items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    order = np.argsort(target_items, kind="stable")
    for start in track(range(0, len(order), user_batch_size), "Ranking", shown=False):
        batch = TargetBatch.of(catalog, targets, order[start : start + user_batch_size])
        indices, items = torch.from_numpy(batch.indices), batch.target_items
        excluded_rows, excluded_items = batch.excluded
        target_scores = _target_scores(score, indices, items, items_chunk, catalog.num_items)
        num_better = torch.zeros(len(indices), dtype=torch.int64)
        best_scores = torch.full((len(indices), LIST_LENGTH), float("-inf"))
        best_items = torch.zeros((len(indices), LIST_LENGTH), dtype=torch.int64)
        for first in range(0, catalog.num_items, items_chunk):
            part = slice(first, min(first + items_chunk, catalog.num_items))
            scores = score(indices, part).clone()  # (targets, items in part)
            inside = (excluded_items >= part.start) & (excluded_items < part.stop)
            columns = excluded_items[inside] - part.start
            scores[excluded_rows[inside], columns] = float("-inf")
            num_better += _count_better(scores, target_scores, keys[part], keys[items])
            # Few chunks improve a list whose tenth score is already high.
            rising = (scores.amax(dim=1) >= best_scores[:, -1]).nonzero().squeeze(1)
            top_scores, top = topk_with_tie_break(scores[rising], keys[part], LIST_LENGTH)
            joined = torch.cat([best_scores[rising], top_scores], 1)
            items_joined = torch.cat([best_items[rising], top + part.start], 1)
            best_scores[rising], columns = topk_with_tie_break(
                joined, keys[items_joined], LIST_LENGTH
            )
            best_items[rising] = items_joined.gather(1, columns)
        lists = torch.where(torch.isfinite(best_scores), best_items, -1)
        accumulator.add(batch, num_better + 1, lists)
    return accumulator.ranking


def _checked(score: ScoreFunction, catalog: Catalog, targets: Targets) -> ScoreFunction:
    """`score`, wrapped to raise NonFiniteError if it returns a score that is nan or infinite."""

    def checked(indices: Tensor, part: slice) -> Tensor:
        scores = score(indices, part)
        # A sum is finite only if all its terms are, and costs less than a test of each.
        if scores.sum().isfinite():
            return scores
        nonfinite = (~scores.isfinite()).nonzero()
        if len(nonfinite):
            row, column = nonfinite[0].tolist()
            item = catalog.items[part.start + column]["item_id"]
            user = catalog.user_ids[targets.users[int(indices[row])]]
            raise NonFiniteError(
                f"the score of item {item!r} for user {str(user)!r} is {float(scores[row, column])}, so "
                "no ranking follows from it; look at what the model makes of this item and this history"
            )
        return scores

    return checked


def _count_better(
    scores: Tensor, target_scores: Tensor, keys: Tensor, target_keys: Tensor
) -> Tensor:
    """How many of `scores` (b, n) rank before `target_scores` (b,), ties by keys (n,): int (b,)."""
    threshold = target_scores.unsqueeze(1)
    # Sums of floats, exact up to 2²⁴, are several times faster than those of truth values.
    flags = torch.empty(scores.shape)
    better = torch.gt(scores, threshold, out=flags).sum(dim=1).long()
    tied = torch.eq(scores, threshold, out=flags).sum(dim=1).nonzero().squeeze(1)
    if len(tied):
        equal = flags[tied].bool() & (keys < target_keys[tied].unsqueeze(1))
        better[tied] += equal.sum(dim=1)
    return better


def _target_scores(
    score: ScoreFunction, indices: Tensor, items: Tensor, items_chunk: int, num_items: int
) -> Tensor:
    """The score of each target's own item, read from the same chunks that it is compared with.

    Computed in another shape it could differ in the last bit, and rank behind itself.
    """
    target_scores = torch.empty(len(indices))
    for first in range(0, num_items, items_chunk):
        part = slice(first, min(first + items_chunk, num_items))
        inside = (items >= part.start) & (items < part.stop)
        if inside.any():
            scores = score(indices, part)[inside]
            columns = (items[inside] - part.start).unsqueeze(1)
            target_scores[inside] = scores.gather(1, columns).squeeze(1)
    return target_scores


ListFunction = Callable[[TargetBatch], Tensor]
"""A batch of targets → recommended items, best first: int64 (b, n), -1 where a list is shorter."""


@torch.no_grad()
def rank_lists(
    list_items: ListFunction,
    catalog: Catalog,
    targets: Targets,
    *,
    list_metrics: ListMetrics | None = None,
    user_batch_size: int = 256,
    progress: bool = False,
) -> Ranking:
    """As `rank_targets`, for a model that gives top-k lists instead of scores.

    A target that is not in its list gets the last rank of all candidates, so that no metric gains from
    the unranked rest.
    """
    accumulator = RankingAccumulator(catalog, targets, list_metrics)
    for start in track(range(0, len(targets), user_batch_size), "Ranking", shown=progress):
        indices = np.arange(start, min(start + user_batch_size, len(targets)))
        batch = TargetBatch.of(catalog, targets, indices)
        lists = list_items(batch)
        hits = lists == batch.target_items.unsqueeze(1)
        last = torch.from_numpy(accumulator.num_candidates(batch))
        ranks = torch.where(hits.any(dim=1), hits.int().argmax(dim=1) + 1, last)
        padding = (0, max(0, LIST_LENGTH - lists.shape[1]))
        accumulator.add(batch, ranks, F.pad(lists, padding, value=-1))
    return accumulator.ranking


class RankingAccumulator:
    """Collects the ranks, list metrics and exposure of batches of targets into one `Ranking`."""

    def __init__(
        self, catalog: Catalog, targets: Targets, list_metrics: ListMetrics | None
    ) -> None:
        self.list_metrics = list_metrics
        names = [] if list_metrics is None else list_metrics.names
        self.is_first = np.zeros(len(targets), dtype=bool)
        self.is_first[np.unique(targets.users, return_index=True)[1]] = True
        self.ranking = Ranking(
            users=targets.users,
            ranks=np.empty(len(targets), dtype=np.int64),
            exposure=np.zeros(catalog.num_items, dtype=np.int64),
            num_candidates=np.empty(len(targets), dtype=np.int64),
            list_metrics={name: np.empty(len(targets)) for name in names},
        )

    def num_candidates(self, batch: TargetBatch) -> NDArray[np.int64]:
        """The number of items that are not excluded for each target of the batch: (b,)."""
        rows, items = batch.excluded
        num_items = len(self.ranking.exposure)
        rows = (rows * num_items + items).unique().numpy() // num_items
        return num_items - np.bincount(rows, minlength=len(batch.indices))

    def add(self, batch: TargetBatch, ranks: Tensor, lists: Tensor) -> None:
        """`ranks` (b,); `lists` (b, n ≥ 10): items, best first, -1 where a list is shorter."""
        ranking, tops = self.ranking, lists[:, :LIST_LENGTH].numpy()
        ranking.ranks[batch.indices] = ranks.masked_fill(batch.missed, MISSED).numpy()
        ranking.num_candidates[batch.indices] = self.num_candidates(batch)
        counted = tops[self.is_first[batch.indices]]  # several targets of one user share one list
        ranking.exposure += np.bincount(counted[counted >= 0], minlength=len(ranking.exposure))
        if self.list_metrics is not None:
            history = batch.history_rows.numpy(), batch.history_items.numpy()
            for name, values in self.list_metrics.measure(tops, *history).items():
                ranking.list_metrics[name][batch.indices] = values


def check_test_targets(catalog: Catalog, split: Split) -> None:
    """Raises VitrineError if the split has no test targets, of which no metric has a mean."""
    if not len(split.test):
        raise VitrineError(
            f"the {split.config.kind} split of {catalog.name} has no test target whose user has "
            f"{split.config.min_history} or more interactions before it (split.min_history); lower that, "
            "or use another split.kind"
        )


def ndcg_interval(
    ranks: NDArray[np.int64], users: NDArray[np.integer] | None = None, k: int = 10
) -> Interval:
    """Mean NDCG@k with its bootstrap interval over users (see `metric_values`)."""
    return mean_interval(metric_values(ranks, users=users)[f"ndcg@{k}"])
