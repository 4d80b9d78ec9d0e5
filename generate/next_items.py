"""Training pairs of the generators, (history, next item), and samples of states and vectors from them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from catalog.catalog import Catalog
from catalog.splits import Split
from generate.conditioning import Ranker, encode_histories


@dataclass(frozen=True)
class NextItem:
    user: int
    """Row of the user."""
    history: NDArray[np.integer]
    """Item rows before the next one, oldest first."""
    item: int
    """Row of the item that came next."""


class NextItemPairs(Dataset[NextItem]):
    """Every (history, next item) pair of the training part of a split.

    Holds indices alone: a history is a view into the catalog's interactions.
    """

    def __init__(
        self, catalog: Catalog, split: Split, item_mask: NDArray[np.bool_] | None = None
    ) -> None:
        """`item_mask` bool (num_items,): only pairs whose next item is True stay."""
        users, positions = split.train_positions()
        self.interactions = catalog.interactions
        self.split = split
        rows = self.interactions.offsets[users] + positions
        items = np.asarray(self.interactions.items)[rows]
        kept = np.ones(len(items), dtype=bool) if item_mask is None else item_mask[items]
        self.users: NDArray[np.integer] = np.asarray(users)[kept]
        self.positions: NDArray[np.integer] = np.asarray(positions)[kept]
        self.items: NDArray[np.integer] = items[kept]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> NextItem:
        user, position = int(self.users[index]), int(self.positions[index])
        history = self.interactions.history(user)[:position]
        return NextItem(user, history, int(self.items[index]))

    def other_purchases(self, index: int) -> NDArray[np.integer]:
        """Item rows of the user's other training interactions, before and after the pair's, in order."""
        user, position = int(self.users[index]), int(self.positions[index])
        items = self.interactions.history(user)
        return np.concatenate([items[:position], items[position + 1 : self.split.train_end[user]]])


def sample_conditions(
    catalog: Catalog, split: Split, ranker: Ranker, seed: int, max_samples: int = 2048
) -> tuple[Tensor, Tensor]:
    """User states of at most `max_samples` training pairs, and as many item vectors: (number, width)."""
    rng = np.random.default_rng(seed)
    pairs = NextItemPairs(catalog, split)
    indices = rng.permutation(len(pairs))[:max_samples]
    states = encode_histories(ranker, [pairs[int(index)].history for index in indices])
    items = np.sort(rng.permutation(len(ranker.item_vectors))[:max_samples])
    return states, torch.from_numpy(np.array(ranker.item_vectors[items]))
