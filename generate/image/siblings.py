"""Finds another item of the same kind, so that an item can stand for what it is and not how it looks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 8
POOL = 20_000


class Siblings:
    """Other items of an item's category; where it has none, its nearest neighbours by vector."""

    def __init__(
        self, categories: Sequence[str | None], item_vectors: NDArray[np.float32], seed: int = 0
    ) -> None:
        """`item_vectors` (num_items, width), unit length; read only for items without a category."""
        names = np.array([name or "" for name in categories], dtype=object)
        _, kinds = np.unique(names, return_inverse=True)
        self.order = np.argsort(kinds, kind="stable")
        counts = np.bincount(kinds)
        self.starts = (np.cumsum(counts) - counts)[kinds]  # (num_items,)
        self.counts = counts[kinds]  # (num_items,)
        self.nameless = names == ""
        self.neighbours = self._find_neighbours(item_vectors, seed)

    def pick(self, items: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
        """A sibling of each item (batch,); the item itself where it is the only one of its kind."""
        items = np.asarray(items)
        siblings = self.order[self.starts[items] + rng.integers(self.counts[items])]
        nameless = np.flatnonzero(self.nameless[items])
        column = rng.integers(NEIGHBOURS, size=len(nameless))
        for place, draw in zip(nameless, column, strict=True):
            near = self.neighbours[int(items[place])]
            siblings[place] = near[draw % len(near)]
        # An item that drew itself takes the next of its kind.
        drew_itself = np.flatnonzero((siblings == items) & ~self.nameless[items])
        for place in drew_itself:
            item = int(items[place])
            kin = self.order[self.starts[item] : self.starts[item] + self.counts[item]]
            siblings[place] = kin[(np.searchsorted(kin, item) + 1) % len(kin)]
        return siblings

    def _find_neighbours(
        self, vectors: NDArray[np.float32], seed: int
    ) -> dict[int, NDArray[np.int64]]:
        """Nameless item → its nearest items among a pool of nameless ones, itself left out."""
        nameless = np.flatnonzero(self.nameless)
        if len(nameless) < 2:
            return {int(item): np.array([item]) for item in nameless}
        rng = np.random.default_rng(seed)
        pool = np.sort(rng.permutation(nameless)[:POOL])
        candidates = np.asarray(vectors[pool])
        k = min(NEIGHBOURS, len(pool) - 1)
        found: dict[int, NDArray[np.int64]] = {}
        for start in range(0, len(nameless), 1024):
            chunk = nameless[start : start + 1024]
            scores = np.asarray(vectors[chunk]) @ candidates.T  # (chunk, pool)
            scores[chunk[:, None] == pool[None, :]] = -np.inf
            nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            found.update(zip(chunk.tolist(), pool[nearest], strict=True))
        return found
