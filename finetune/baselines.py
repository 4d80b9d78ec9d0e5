"""Baselines that learn nothing from content: popularity and chance."""

import numpy as np
import torch
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Split, Targets
from finetune.evaluate import Ranking, rank_targets


def popularity_scores(split: Split) -> Tensor:
    """How often each item was bought in training: float32 (num_items,)."""
    return torch.from_numpy(split.train_counts.astype(np.float32))


def rank_by_popularity(catalog: Catalog, split: Split, targets: Targets) -> Ranking:
    counts = popularity_scores(split)

    def score(people: Tensor, part: slice) -> Tensor:
        return counts[part].expand(len(people), -1)

    return rank_targets(score, catalog, targets)


def rank_by_chance(catalog: Catalog, targets: Targets, seed: int = 0) -> Ranking:
    """Every item has one random score, the same for everybody."""
    scores = torch.rand(catalog.num_items, generator=torch.Generator().manual_seed(seed))

    def score(people: Tensor, part: slice) -> Tensor:
        return scores[part].expand(len(people), -1)

    return rank_targets(score, catalog, targets)
