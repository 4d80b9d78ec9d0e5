"""Samples siblings: other items of the same category, so that an item condition gives the category only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_NEIGHBORS = 8
POOL_SIZE = 20_000


class Siblings:
    """Other items of an item's category; where it has none, its nearest neighbors by embedding."""

    def __init__(
        self, categories: Sequence[str | None], item_vectors: NDArray[np.float32], seed: int = 0
    ) -> None:
        """`item_vectors` (num_items, width), unit length; read only for items without a category."""
        names = np.array([name or "" for name in categories], dtype=object)
        _, codes = np.unique(names, return_inverse=True)
        self.order = np.argsort(codes, kind="stable")
        counts = np.bincount(codes)
        self.starts = (np.cumsum(counts) - counts)[codes]  # (num_items,)
        self.counts = counts[codes]  # (num_items,)
        self.without_category = names == ""
        self.neighbors = self._nearest_neighbors(item_vectors, seed)

    def sample(self, items: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
        """A sibling of each item (batch,); the item itself where it is the only one of its category."""
        items = np.asarray(items)
        siblings = self.order[self.starts[items] + rng.integers(self.counts[items])]
        uncategorized = np.flatnonzero(self.without_category[items])
        columns = rng.integers(NUM_NEIGHBORS, size=len(uncategorized))
        for index, column in zip(uncategorized, columns, strict=True):
            near = self.neighbors[int(items[index])]
            siblings[index] = near[column % len(near)]
        # Where an item was drawn for itself, the next item of its category is taken.
        repeated = np.flatnonzero((siblings == items) & ~self.without_category[items])
        for index in repeated:
            item = int(items[index])
            members = self.order[self.starts[item] : self.starts[item] + self.counts[item]]
            siblings[index] = members[(np.searchsorted(members, item) + 1) % len(members)]
        return siblings

    def _nearest_neighbors(
        self, vectors: NDArray[np.float32], seed: int
    ) -> dict[int, NDArray[np.int64]]:
        """Item without category → its nearest items among a pool of such items, without itself."""
        uncategorized = np.flatnonzero(self.without_category)
        if len(uncategorized) < 2:
            return {int(item): np.array([item]) for item in uncategorized}
        rng = np.random.default_rng(seed)
        pool = np.sort(rng.permutation(uncategorized)[:POOL_SIZE])
        candidates = np.asarray(vectors[pool])
        k = min(NUM_NEIGHBORS, len(pool) - 1)
        nearest_of: dict[int, NDArray[np.int64]] = {}
        for start in range(0, len(uncategorized), 1024):
            chunk = uncategorized[start : start + 1024]
            scores = np.asarray(vectors[chunk]) @ candidates.T  # (chunk, pool)
            scores[chunk[:, None] == pool[None, :]] = -np.inf
            nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            nearest_of.update(zip(chunk.tolist(), pool[nearest], strict=True))
        return nearest_of
