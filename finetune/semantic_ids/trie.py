"""A prefix tree (trie) of all semantic ids, in sorted arrays, for constrained decoding."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class Trie(nn.Module):
    """A node of depth t is a prefix of t codes of some semantic id; node 0 of depth 0 is the root.

    Items are sorted by their codes, so that a node is a contiguous run of items and its children are
    adjacent. Nodes of one depth are numbered in that order; a node stores only where its items and its
    children start, and its last code: a few integers per item, and no lookup in Python.
    """

    order: Tensor
    ranks: Tensor

    def __init__(self, codes: NDArray[np.int64], sizes: list[int]) -> None:
        """`codes` (num_items, length), no two rows equal; `sizes`: codes of each level."""
        super().__init__()
        self.sizes = sizes
        num_items, self.length = codes.shape
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order]
        self._register("order", order)
        self._register("ranks", np.argsort(order))
        starts = [np.array([0, num_items])]
        differ = np.zeros(num_items, dtype=bool)
        differ[0] = True
        for level in range(self.length):
            differ[1:] |= ordered[1:, level] != ordered[:-1, level]
            starts.append(np.append(np.flatnonzero(differ), num_items))
        for depth, begins in enumerate(starts):
            self._register(f"starts_{depth}", begins)
        for depth in range(self.length):
            below = starts[depth + 1]
            self._register(f"first_{depth}", np.searchsorted(below, starts[depth]))
            self._register(f"codes_{depth}", ordered[below[:-1], depth])

    def _register(self, name: str, array: NDArray[np.int64]) -> None:
        self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def child_nodes(
        self, depth: int, nodes: Tensor, candidate_counts: Tensor | None = None
    ) -> Tensor:
        """Child nodes of `nodes` (m,) of one depth, by code: int64 (m, sizes[depth]), -1 for no child.

        `candidate_counts`: `prefix_counts` of the candidate items; children without any are left out.
        """
        first = self.get_buffer(f"first_{depth}")
        begins = first[nodes]
        counts = first[nodes + 1] - begins
        rows = torch.arange(len(nodes), device=nodes.device).repeat_interleave(counts)
        before = (counts.cumsum(0) - counts)[rows]
        child = begins[rows] + torch.arange(len(rows), device=nodes.device) - before
        if candidate_counts is not None:
            starts = self.get_buffer(f"starts_{depth + 1}")
            has_items = candidate_counts[starts[child + 1]] > candidate_counts[starts[child]]
            rows, child = rows[has_items], child[has_items]
        children = torch.full((len(nodes), self.sizes[depth]), -1, device=nodes.device)
        children[rows, self.get_buffer(f"codes_{depth}")[child]] = child
        return children

    def prefix_counts(self, items: Tensor) -> Tensor:
        """How many of `items`, bool (num_items,), precede each sorted position: (num_items + 1,)."""
        return F.pad(items[self.order].cumsum(0), (1, 0))

    def nodes_of(self, items: Tensor, depth: int) -> Tensor:
        """The node of `depth` on the path to each item's semantic id: shaped like `items`."""
        starts = self.get_buffer(f"starts_{depth}")
        return torch.searchsorted(starts, self.ranks[items], right=True) - 1

    def num_items_below(self, depth: int, nodes: Tensor) -> Tensor:
        starts = self.get_buffer(f"starts_{depth}")
        return starts[nodes + 1] - starts[nodes]

    def last_codes(self, depth: int, nodes: Tensor) -> Tensor:
        """The last code of each node of a depth ≥ 1."""
        return self.get_buffer(f"codes_{depth - 1}")[nodes]
