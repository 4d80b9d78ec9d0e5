"""Samples user states of single purchases and of the users' other purchases; maps the first to the second.

A generator may be trained on the state of the purchase itself (`self_condition_prob`), if that is first moved
and scaled to the distribution of states of histories (`PurchaseStates.match_moments`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Split
from generate.conditioning import NOISE, Ranker, encode_histories
from generate.next_items import NextItemPairs


@dataclass(frozen=True)
class PurchaseStates:
    """User states of sampled purchases: of the purchase alone, and of the user's other purchases."""

    history_states: Tensor
    """float32 (purchases, width): states of the user's other purchases."""
    purchase_states: Tensor
    """float32 (purchases, width): states of a history that holds nothing but the purchase."""
    categories: NDArray[np.str_]
    """(purchases,): the items' categories."""

    def category_residuals(self) -> Tensor:
        """`purchase_states` minus the mean of their category: (purchases, width)."""
        categories = torch.from_numpy(np.unique(self.categories, return_inverse=True)[1])
        counts = torch.bincount(categories)[:, None]
        sums = torch.zeros(len(counts), self.purchase_states.shape[1])
        sums = sums.index_add(0, categories, self.purchase_states)
        return self.purchase_states - (sums / counts)[categories]

    def match_moments(self, states: Tensor) -> Tensor:
        """States of single purchases (batch, width), moved and scaled to the mean and spread of
        `history_states`; zeros stay zeros."""
        target_mean, mean, ratio = self._moments
        present = states.ne(0).any(-1, keepdim=True)
        return torch.where(present, target_mean + ratio * (states - mean), states)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means of `history_states` and of `purchase_states`, and the ratio of their spreads."""
        width = self.purchase_states.shape[1]
        if len(self.purchase_states) < 2:
            return torch.zeros(width), torch.zeros(width), torch.ones(())
        target_mean, mean = self.history_states.mean(0), self.purchase_states.mean(0)
        spread = (self.purchase_states - mean).std()
        floor = 1e-12 + NOISE**0.5 * self.purchase_states.square().mean().sqrt()
        if spread <= floor:  # equal, but for rounding
            return target_mean, mean, torch.ones(())
        return target_mean, mean, (self.history_states - target_mean).std() / spread


def sample_purchase_states(
    catalog: Catalog, split: Split, ranker: Ranker, seed: int, max_samples: int = 2**15
) -> PurchaseStates:
    """Samples at most `max_samples` training purchases of users who have other purchases as well."""
    pairs = NextItemPairs(catalog, split)
    indices = np.random.default_rng(seed).permutation(len(pairs))[:max_samples]
    history_states = encode_histories(
        ranker, [pairs.other_purchases(int(index)) for index in indices]
    )
    known = history_states.ne(0).any(-1).numpy()
    items, purchases = np.unique(pairs.items[indices[known]], return_inverse=True)
    states = encode_histories(ranker, [items[row : row + 1] for row in range(len(items))])
    all_categories = catalog.items["category"]
    categories = np.array([all_categories[item] or "" for item in items.tolist()])
    return PurchaseStates(
        history_states[known], states[torch.from_numpy(purchases)], categories[purchases]
    )
