"""Metrics of rankings, one value a person: how high targets stood, and what the list of ten held.

Where everybody has one target, Recall@k is also the hit rate, and the average precision at k is the
reciprocal rank within k.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split, Targets, repeated_target_mask, target_rows

CUTOFFS = (5, 10, 20)
LIST_LENGTH = 10
"""Of the lists whose content is measured."""
HEAD_SHARE = 0.2
"""The long tail is what remains without this share of the items, the most popular ones."""
MISSED = np.iinfo(np.int32).max
"""The rank of a target that is no candidate (`repeats: mask`): beyond every cutoff and catalog."""
SMOOTHING = 0.01
"""Of a list's categories by those of the history (Steck, 2018, α)."""


@dataclass
class Ranking:
    """What evaluation keeps of one system; nothing of it grows with people × items."""

    people: NDArray[np.int32]
    """(targets,): whose target it is, ascending."""
    ranks: NDArray[np.int64]
    """(targets,): the target's place; 1 is the best, MISSED where it is no candidate."""
    shown: NDArray[np.int64]
    """(num_items,): lists of ten each item stood in."""
    candidates: NDArray[np.int64]
    """(targets,): items that were ranked."""
    lists: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """What was measured of the list each target stood in: name → (targets,)."""


def metric_values(
    ranks: NDArray[np.int64],
    candidates: NDArray[np.int64] | None = None,
    people: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Accuracy, (people,) each; with the number of `candidates` also the area under the ROC curve.

    `ranks`, `candidates` and `people` (targets,): the target's place among all candidates, those of the
    same person among them, how many there were, and whose it is; None: everybody has one. Values come
    in the order of people. A person's Recall@k is the share of their targets in the first k, their
    NDCG@k is over that of the best order, their average precision over min(k, their targets) (as in
    RecBole), their MRR is that of the first target. Where somebody has several, also the share of
    people with any in the first k (hit@k), and of the first k that are targets (precision@k). A target
    whose rank is MISSED counts 0 in all of them.
    """
    if people is None:
        people = np.arange(len(ranks))
    order = np.lexsort((ranks, people))
    ranks = ranks[order]
    _, begins, owners, counts = np.unique(
        people[order], return_index=True, return_inverse=True, return_counts=True
    )

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(owners, values.astype(np.float64), minlength=len(counts))
        return sums.astype(np.float64)

    places = np.arange(len(ranks)) - begins[owners] + 1  # among the person's own, the best is 1
    best = np.cumsum(1.0 / np.log2(np.arange(max(CUTOFFS)) + 2))
    values = {"mrr": np.where(ranks[begins] == MISSED, 0.0, 1.0 / ranks[begins])}
    for k in CUTOFFS:
        hit = ranks <= k
        most = np.minimum(counts, k)
        values[f"recall@{k}"] = total(hit) / counts
        gains = total(np.where(hit, 1.0 / np.log2(ranks + 1), 0.0))
        values[f"ndcg@{k}"] = gains / best[most - 1]
        values[f"map@{k}"] = total(np.where(hit, places / ranks, 0.0)) / most
        if len(counts) and counts.max() > 1:
            values[f"hit@{k}"] = (total(hit) > 0).astype(np.float64)
            values[f"precision@{k}"] = total(hit) / k
    if candidates is not None:
        missed = ranks == MISSED
        others = candidates[order] - total(~missed).astype(np.int64)[owners]
        ahead = ranks - places
        right = np.where(others > 0, (others - ahead) / np.maximum(others, 1), 1.0)
        right[missed] = 0.0
        values["auc"] = total(right) / counts
    return values


def mean_ndcg(ranking: Ranking) -> float:
    """NDCG@10 over people; what settings, weights and steps are chosen by."""
    return float(metric_values(ranking.ranks, people=ranking.people)["ndcg@10"].mean())


class ListMeasures:
    """What lists hold, beyond the target: how popular, how new, how varied, how like the history.

    All of an item is told from the training part. `categories` int (num_items,), -1 where unknown,
    or None.
    """

    def __init__(
        self,
        train_counts: NDArray[np.int64],
        num_people: int,
        categories: NDArray[np.int64] | None,
    ) -> None:
        counts = train_counts.astype(np.float64)
        head = np.argsort(-counts, kind="stable")[: round(HEAD_SHARE * len(counts))]
        in_tail = np.ones(len(counts))
        in_tail[head] = 0.0
        self.select_items = {
            "arp@10": counts,
            "aplt@10": in_tail,
            "epc@10": 1.0 - np.minimum(counts / max(1, num_people), 1.0),
            # What nobody took is as surprising as what one took.
            "efd@10": -np.log2(np.maximum(counts, 1.0) / max(1.0, counts.sum())),
        }
        """Means over the list: average popularity and share of the long tail (Abdollahpouri et al.,
        2019), expected popularity complement and expected free discovery (Vargas and Castells,
        2011; the latter in bits)."""
        known = categories is not None and (categories >= 0).any()
        self.categories = categories if known else None

    @classmethod
    def of(cls, catalog: Catalog, split: Split) -> "ListMeasures":
        column = catalog.items.data.column("category").combine_chunks()
        codes = column.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(split.train_counts, catalog.num_users, codes.astype(np.int64))

    @property
    def names(self) -> list[str]:
        varied = [] if self.categories is None else ["diversity@10", "miscalibration@10"]
        return [*self.select_items, *varied]

    def measure(
        self,
        lists: NDArray[np.int64],
        seen_rows: NDArray[np.int64],
        seen_items: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Of each list, (b,); nan where there is nothing to measure.

        `lists` int (b, 10): items, -1 where a list is shorter; `seen_rows`, `seen_items` (s,): whose
        history holds what.
        """
        there = lists >= 0
        length = there.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found = {
                name: np.where(there, values[lists], 0.0).sum(axis=1) / length
                for name, values in self.select_items.items()
            }
            if self.categories is not None:
                found["diversity@10"] = self._diversity(lists)
                found["miscalibration@10"] = self._miscalibration(lists, seen_rows, seen_items)
        return found

    def _diversity(self, lists: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of a list's pairs of items of known category whose categories differ."""
        assert self.categories is not None
        codes = np.where(lists >= 0, self.categories[lists], -1)
        known = codes >= 0
        first, second = np.triu_indices(lists.shape[1], 1)
        both = known[:, first] & known[:, second]
        differ = both & (codes[:, first] != codes[:, second])
        return differ.sum(axis=1) / both.sum(axis=1)

    def _miscalibration(
        self,
        lists: NDArray[np.int64],
        seen_rows: NDArray[np.int64],
        seen_items: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Nats by which a list's shares of categories miss the history's (Steck, 2018, eq. 6)."""
        assert self.categories is not None
        of_history = self._shares(seen_rows, seen_items, len(lists))
        rows = np.repeat(np.arange(len(lists)), lists.shape[1])
        there = lists.ravel() >= 0
        of_list = self._shares(rows[there], lists.ravel()[there], len(lists))
        missed = np.full(len(lists), np.nan)
        for row, (wanted, given) in enumerate(zip(of_history, of_list, strict=True)):
            if wanted and given:
                missed[row] = sum(
                    p * np.log(p / ((1 - SMOOTHING) * given.get(code, 0.0) + SMOOTHING * p))
                    for code, p in wanted.items()
                )
        return missed

    def _shares(
        self, rows: NDArray[np.int64], items: NDArray[np.int64], num_rows: int
    ) -> list[dict[int, float]]:
        assert self.categories is not None
        codes = self.categories[items]
        rows, codes = rows[codes >= 0], codes[codes >= 0]
        pairs, counts = np.unique(np.stack([rows, codes]), axis=1, return_counts=True)
        totals = np.bincount(rows, minlength=num_rows)
        shares: list[dict[int, float]] = [{} for _ in range(num_rows)]
        for row, code, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            shares[row][code] = count / totals[row]
        return shares


def gini(shown: NDArray[np.int64]) -> float:
    """How unevenly items are shown: 0 all equally often, towards 1 always the same few."""
    if not shown.sum():
        return float("nan")
    ordered = np.sort(shown.astype(np.float64))
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


ACTIVITY = ((1, 5, "few"), (5, 20, "some"), (20, np.inf, "many"))
"""Slices by the length of the history: from, to (not included), name."""


def slices_of(catalog: Catalog, split: Split, targets: Targets) -> dict[str, NDArray[np.bool_]]:
    """Groups of targets, bool (targets,) each; empty ones are left out.

    warm, cold: the item was, or never was, taken in training; new, repeated: the item is not, or is, in
    the history before it (only where `repeats` keeps the latter); without text, without picture: it
    has none; few, some, many: length of that history.
    """
    items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    warm = split.warm_items[items]
    found = {"warm": warm, "cold": ~warm}
    if targets.repeats != "drop":
        repeated = repeated_target_mask(catalog.interactions, targets)
        found |= {"new": ~repeated, "repeated": repeated}
    for name, columns in (("without picture", ["image"]), ("without text", ["title", "text"])):
        lacks = np.ones(catalog.num_items, dtype=bool)
        for column in columns:
            values = catalog.items.data.column(column)
            lacks &= values.is_null().to_numpy()
        if not lacks.all():
            found[name] = lacks[items]
    for least, most, name in ACTIVITY:
        found[name] = (targets.history_lengths >= least) & (targets.history_lengths < most)
    return {name: chosen for name, chosen in found.items() if chosen.any()}


def summarise(
    ranking: Ranking, slices: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[str, float]:
    """A flat table of means over people: of all targets, and of those in each slice (`slice/metric`)."""
    table: dict[str, float] = {
        "people": float(len(np.unique(ranking.people))),
        "coverage@10": float((ranking.shown > 0).mean()),
        "gini@10": gini(ranking.shown),
    }
    everyone = np.ones(len(ranking.ranks), dtype=bool)
    for name, chosen in {"": everyone, **(slices or {})}.items():
        prefix = f"{name}/" if name else ""
        table[f"{prefix}targets"] = float(chosen.sum())
        people = ranking.people[chosen]
        values = metric_values(ranking.ranks[chosen], ranking.candidates[chosen], people)
        _, first = np.unique(people, return_index=True)
        values |= {metric: of_all[chosen][first] for metric, of_all in ranking.lists.items()}
        for metric, sample_users in values.items():
            known = sample_users[~np.isnan(sample_users)]
            table[f"{prefix}{metric}"] = float(known.mean()) if len(known) else float("nan")
    return table
