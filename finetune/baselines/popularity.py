"""Unpersonalised baselines: popularity and random scores."""

import numpy as np
import torch
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Split, Targets
from finetune.evaluate import ndcg_interval, rank_targets
from finetune.list_metrics import ListMetrics
from finetune.metrics import Ranking, summarize, target_slices


def popularity_scores(split: Split) -> Tensor:
    """Training interactions of each item: float32 (num_items,)."""
    return torch.from_numpy(split.train_counts.astype(np.float32))


def rank_by_popularity(catalog: Catalog, split: Split, targets: Targets) -> Ranking:
    counts = popularity_scores(split)

    def score(indices: Tensor, part: slice) -> Tensor:
        return counts[part].expand(len(indices), -1)

    return rank_targets(
        score, catalog, targets, list_metrics=ListMetrics.from_split(catalog, split)
    )


def rank_by_chance(catalog: Catalog, targets: Targets, seed: int = 0) -> Ranking:
    """Ranking by a random score of each item, the same for all users."""
    scores = torch.rand(catalog.num_items, generator=torch.Generator().manual_seed(seed))

    def score(indices: Tensor, part: slice) -> Tensor:
        return scores[part].expand(len(indices), -1)

    return rank_targets(score, catalog, targets)


def test_metrics(ranking: Ranking, catalog: Catalog, split: Split) -> dict[str, float]:
    """Test metrics of a model with the interval of NDCG@10, and those of popularity, as a flat table."""
    slices = target_slices(catalog, split, split.test)
    interval = ndcg_interval(ranking.ranks, ranking.users)
    popular = summarize(rank_by_popularity(catalog, split, split.test), slices)
    return {
        **{f"test/{name}": value for name, value in summarize(ranking, slices).items()},
        "test/ndcg@10_low": interval.low,
        "test/ndcg@10_high": interval.high,
        **{f"popularity/{name}": value for name, value in popular.items()},
    }
