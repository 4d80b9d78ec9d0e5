"""All identifiers as a tree of prefixes, in sorted arrays: what a decoder may say next."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class Trie(nn.Module):
    """A node of depth t is t codes with which some identifier begins; node 0 of depth 0 is the root.

    Items are sorted by their codes, so that a node is a run of them and its children lie side by
    side. Nodes of one depth are numbered in that order; of each, only where its items and its
    children begin is kept, and its last code: a few integers an item, and no lookup in Python.
    """

    order: Tensor
    places: Tensor

    def __init__(self, codes: NDArray[np.int64], sizes: list[int]) -> None:
        """`codes` (num_items, length), no two rows the same; `sizes`: codes of each level."""
        super().__init__()
        self.sizes = sizes
        num_items, self.length = codes.shape
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order]
        self._keep("order", order)
        self._keep("places", np.argsort(order))
        starts = [np.array([0, num_items])]
        differ = np.zeros(num_items, dtype=bool)
        differ[0] = True
        for level in range(self.length):
            differ[1:] |= ordered[1:, level] != ordered[:-1, level]
            starts.append(np.append(np.flatnonzero(differ), num_items))
        for depth, begins in enumerate(starts):
            self._keep(f"starts_{depth}", begins)
        for depth in range(self.length):
            below = starts[depth + 1]
            self._keep(f"first_{depth}", np.searchsorted(below, starts[depth]))
            self._keep(f"codes_{depth}", ordered[below[:-1], depth])

    def _keep(self, name: str, array: NDArray[np.int64]) -> None:
        self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def branches(self, depth: int, nodes: Tensor, among: Tensor | None = None) -> Tensor:
        """What follows nodes (m,) of one depth, by its code: int64 (m, sizes[depth]), -1 for nothing.

        `among`: what `counted` gives of some items; what leads to none of them is left out.
        """
        first = self.get_buffer(f"first_{depth}")
        begins = first[nodes]
        counts = first[nodes + 1] - begins
        rows = torch.arange(len(nodes), device=nodes.device).repeat_interleave(counts)
        before = (counts.cumsum(0) - counts)[rows]
        found = begins[rows] + torch.arange(len(rows), device=nodes.device) - before
        if among is not None:
            starts = self.get_buffer(f"starts_{depth + 1}")
            leads = among[starts[found + 1]] > among[starts[found]]
            rows, found = rows[leads], found[leads]
        branches = torch.full((len(nodes), self.sizes[depth]), -1, device=nodes.device)
        branches[rows, self.get_buffer(f"codes_{depth}")[found]] = found
        return branches

    def counted(self, items: Tensor) -> Tensor:
        """Of `items`, bool (num_items,): how many come before each place in the order, (num_items + 1,)."""
        return F.pad(items[self.order].cumsum(0), (1, 0))

    def nodes_of(self, items: Tensor, depth: int) -> Tensor:
        """The node of that depth that each item's identifier goes through: like `items`."""
        starts = self.get_buffer(f"starts_{depth}")
        return torch.searchsorted(starts, self.places[items], right=True) - 1

    def num_items_below(self, depth: int, nodes: Tensor) -> Tensor:
        starts = self.get_buffer(f"starts_{depth}")
        return starts[nodes + 1] - starts[nodes]

    def last_codes(self, depth: int, nodes: Tensor) -> Tensor:
        """The code with which nodes of a depth ≥ 1 end."""
        return self.get_buffer(f"codes_{depth - 1}")[nodes]
