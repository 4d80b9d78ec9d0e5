"""Item-kNN: item-based collaborative filtering (Sarwar et al., 2001; Deshpande and Karypis, 2004)."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Split, Targets, train_user_items
from finetune.evaluate import ScoreFunction

TRIED_K, TRIED_SHRINK = (20, 50, 100, 200, 500), (0.0, 10.0, 30.0, 100.0)
"""Candidates of the grid search on validation, for settings that are null."""
DEFAULT_K, DEFAULT_SHRINK = 100, 10.0
"""Values without validation targets."""
MOST_KEPT = 2**27
"""Maximum number of neighbours of all items together: 1.5 GB."""
DENSE_BYTES = 64 * 2**20
"""Memory of one block of the item × item matrix."""
PAIRS_AT_ONCE = 2**20
"""Pairs of items counted per chunk."""


class ItemKNN:
    """The nearest neighbours of each item by cosine similarity of their training users.

    `shrink` is added to the denominator, so that a cosine of few users counts for less (Bell and Koren,
    2007).
    """

    def __init__(self, items: Tensor, similarities: Tensor) -> None:
        """int32 and float32, both (num_items, k), the nearest first; missing neighbours have similarity 0."""
        self.items, self.similarities = items, similarities

    def truncate(self, k: int) -> "ItemKNN":
        """The same model with only the k nearest neighbours of each item."""
        return ItemKNN(self.items[:, :k], self.similarities[:, :k])

    @classmethod
    def fit(
        cls,
        catalog: Catalog,
        split: Split,
        k: int,
        shrink: float,
        progress: Callable[[int], None] | None = None,
        itself: bool = False,
    ) -> "ItemKNN":
        """`itself`: an item is a neighbour of itself, for splits in which seen items are candidates."""
        users, items = train_user_items(catalog, split)
        pairs = np.unique(users * catalog.num_items + items)
        users, items = pairs // catalog.num_items, pairs % catalog.num_items
        # The start of each user's items.
        begins = np.searchsorted(users, np.arange(catalog.num_users + 1))
        by_item = np.argsort(items, kind="stable")  # interactions sorted by item
        starts = np.searchsorted(items[by_item], np.arange(catalog.num_items + 1))
        sizes = np.diff(starts).astype(np.float32)
        k = min(k, catalog.num_items)
        neighbours = np.zeros((catalog.num_items, k), dtype=np.int32)
        cosines = np.zeros((catalog.num_items, k), dtype=np.float32)
        block = max(1, DENSE_BYTES // (8 * catalog.num_items))
        for first in range(0, catalog.num_items, block):
            last = min(first + block, catalog.num_items)
            chosen = np.arange(first, last)
            entries = by_item[starts[first] : starts[last]]
            counts = _cooccurrence(
                items,
                begins,
                users[entries],
                items[entries] - first,
                catalog.num_items,
                last - first,
            )
            block_cosines = torch.from_numpy(counts.reshape(catalog.num_items, -1))
            if not itself:
                block_cosines[chosen, chosen - first] = 0.0
            lengths = np.sqrt(sizes[:, None] * sizes[chosen]) + shrink
            block_cosines /= torch.from_numpy(lengths).clamp(min=1e-12)  # 0 for cold items
            best, rows = block_cosines.topk(k, dim=0)
            neighbours[chosen], cosines[chosen] = rows.T.numpy(), best.T.numpy()
            if progress is not None:
                progress(last)
        return cls(torch.from_numpy(neighbours), torch.from_numpy(cosines))

    def scorer(self, catalog: Catalog, targets: Targets) -> ScoreFunction:
        """Scores are sums of similarities to the items of the history."""
        interactions = catalog.interactions

        def score(indices: Tensor, part: slice) -> Tensor:
            histories = [np.unique(targets.history(interactions, row)) for row in indices.tolist()]
            owners = torch.arange(len(indices)).repeat_interleave(
                torch.tensor([*map(len, histories)])
            )
            of_all, width = torch.from_numpy(np.concatenate(histories)), part.stop - part.start
            scores = torch.zeros(len(indices) * width)
            step = max(1, PAIRS_AT_ONCE // self.items.shape[1])
            for first in range(0, len(of_all), step):
                rows = slice(first, first + step)
                items = self.items[of_all[rows]].long() - part.start
                inside = (items >= 0) & (items < width)
                entries = (owners[rows].unsqueeze(1) * width + items)[inside]
                scores.index_add_(0, entries, self.similarities[of_all[rows]][inside])
            return scores.view(len(indices), width)

        return score


def _cooccurrence(
    items: NDArray[np.int64],
    begins: NDArray[np.int64],
    users: NDArray[np.int64],
    columns: NDArray[np.int64],
    num_items: int,
    num_columns: int,
) -> NDArray[np.float32]:
    """Co-occurrence counts: how many of `users` (n,), by their column (n,), interacted with each item.

    The items of a user are items[begins[user] : begins[user + 1]]. Returns (num_items · num_columns,).
    """
    counts = np.zeros(num_items * num_columns, dtype=np.float32)
    lengths = begins[users + 1] - begins[users]
    ends = np.cumsum(lengths)
    start = 0
    while start < len(users):  # a batch of users whose items fit in a few MB
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + PAIRS_AT_ONCE)))
        part = slice(start, stop)
        within = np.arange(lengths[part].sum()) - np.repeat(
            ends[part] - lengths[part] - (ends[start] - lengths[start]), lengths[part]
        )
        items_of_users = items[np.repeat(begins[users[part]], lengths[part]) + within]
        cells, times = np.unique(
            items_of_users * num_columns + np.repeat(columns[part], lengths[part]),
            return_counts=True,
        )
        counts[cells] += times
        start = stop
    return counts
