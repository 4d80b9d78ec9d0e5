"""Metrics of recommended lists beyond accuracy: popularity bias, novelty, diversity, calibration."""

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split

LIST_LENGTH = 10
"""Length of the lists that these metrics measure."""
HEAD_SHARE = 0.2
"""The long tail is what remains without this share of the items, the most popular ones."""
SMOOTHING = 0.01
"""Of a list's categories by those of the history (Steck, 2018, α)."""


class ListMetrics:
    """Popularity bias, novelty, diversity and miscalibration of top-ten lists.

    Item popularity is that of the training part. `categories` int (num_items,), -1 if unknown, or None.
    """

    def __init__(
        self,
        train_counts: NDArray[np.int64],
        num_users: int,
        categories: NDArray[np.int64] | None,
    ) -> None:
        counts = train_counts.astype(np.float64)
        head = np.argsort(-counts, kind="stable")[: round(HEAD_SHARE * len(counts))]
        in_tail = np.ones(len(counts))
        in_tail[head] = 0.0
        self.item_values = {
            "arp@10": counts,
            "aplt@10": in_tail,
            "epc@10": 1.0 - np.minimum(counts / max(1, num_users), 1.0),
            # An item without training interactions counts as surprising as one with a single one.
            "efd@10": -np.log2(np.maximum(counts, 1.0) / max(1.0, counts.sum())),
        }
        """Means over the list: average popularity and share of the long tail (Abdollahpouri et al.,
        2019), expected popularity complement and expected free discovery (Vargas and Castells,
        2011; the latter in bits)."""
        known = categories is not None and (categories >= 0).any()
        self.categories = categories if known else None

    @classmethod
    def from_split(cls, catalog: Catalog, split: Split) -> "ListMetrics":
        column = catalog.items.data.column("category").combine_chunks()
        codes = column.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(split.train_counts, catalog.num_users, codes.astype(np.int64))

    @property
    def names(self) -> list[str]:
        category_metrics = [] if self.categories is None else ["diversity@10", "miscalibration@10"]
        return [*self.item_values, *category_metrics]

    def measure(
        self,
        lists: NDArray[np.int64],
        history_rows: NDArray[np.int64],
        history_items: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Each metric of each list, (b,); nan where it is undefined.

        `lists` int (b, 10): items, -1 where a list is shorter; `history_rows`, `history_items`
        (s,): the row and item of every interaction of the users' histories.
        """
        filled = lists >= 0
        length = filled.sum(axis=1)
        with np.errstate(invalid="ignore"):
            metrics = {
                name: np.where(filled, values[lists], 0.0).sum(axis=1) / length
                for name, values in self.item_values.items()
            }
            if self.categories is not None:
                metrics["diversity@10"] = self._diversity(lists)
                metrics["miscalibration@10"] = self._miscalibration(
                    lists, history_rows, history_items
                )
        return metrics

    def _diversity(self, lists: NDArray[np.int64]) -> NDArray[np.float64]:
        """The share of a list's item pairs, both of known category, whose categories differ."""
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
        history_rows: NDArray[np.int64],
        history_items: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """KL divergence (nats) of a list's category shares from the history's (Steck, 2018, eq. 6)."""
        assert self.categories is not None
        of_history = self._shares(history_rows, history_items, len(lists))
        rows = np.repeat(np.arange(len(lists)), lists.shape[1])
        filled = lists.ravel() >= 0
        of_list = self._shares(rows[filled], lists.ravel()[filled], len(lists))
        divergence = np.full(len(lists), np.nan)
        for row, (expected, shares) in enumerate(zip(of_history, of_list, strict=True)):
            if expected and shares:
                divergence[row] = sum(
                    p * np.log(p / ((1 - SMOOTHING) * shares.get(code, 0.0) + SMOOTHING * p))
                    for code, p in expected.items()
                )
        return divergence

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
