"""Fits item-kNN: the neighbourhood size and shrinkage that rank validation best."""

from typing import Any

from catalog.catalog import Catalog
from catalog.progress import ProgressDisplay
from catalog.splits import Split, Targets
from finetune.baselines.fitted import FittedBaseline
from finetune.baselines.item_knn import (
    DEFAULT_K,
    DEFAULT_SHRINK,
    MOST_KEPT,
    TRIED_K,
    TRIED_SHRINK,
    ItemKNN,
)
from finetune.config import FinetuneConfig, ItemKNNConfig
from finetune.evaluate import rank_targets
from finetune.metrics import Ranking, mean_ndcg


def fit_item_knn(config: FinetuneConfig, catalog: Catalog, split: Split) -> FittedBaseline:
    """Item-kNN; k and shrink that the settings leave open are those of the best validation NDCG@10."""
    ks, shrinks = _candidates(config.item_knn, catalog, split)
    display = ProgressDisplay("Item-kNN", catalog.num_items * len(shrinks))
    validation = split.validation.sample_users(config.validation_users)
    best: tuple[ItemKNN, float | None, dict[str, Any]] | None = None
    for number, shrink in enumerate(shrinks):

        def show(done: int, before: int = number * catalog.num_items) -> None:
            if config.trainer.progress and display.is_due(before + done):
                display.show(before + done)

        itself = split.config.repeats == "rank"
        most = ItemKNN.fit(catalog, split, max(ks), shrink, show, itself)
        for k in ks:
            fitted = most.truncate(k)
            ndcg = None
            if len(validation):
                ndcg = mean_ndcg(_rank_by_item_knn(fitted, catalog, validation))
            if best is None or (ndcg or 0.0) > (best[1] or 0.0):
                best = fitted, ndcg, {"k": k, "shrink": shrink}
    display.close()
    assert best is not None
    fitted, ndcg, metrics = best

    def rank(targets: Targets, **more: Any) -> Ranking:
        return _rank_by_item_knn(fitted, catalog, targets, **more)

    return FittedBaseline(rank, ndcg, metrics)


def _candidates(
    config: ItemKNNConfig, catalog: Catalog, split: Split
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The k and shrink to try: one of each if settings give it or there are no validation targets."""
    can_choose = len(split.validation) > 0
    ks = [k for k in TRIED_K if k * catalog.num_items <= MOST_KEPT] or [TRIED_K[0]]
    default = min(DEFAULT_K, ks[-1])
    shrinks = TRIED_SHRINK if can_choose else (DEFAULT_SHRINK,)
    return (
        (config.k,) if config.k is not None else tuple(ks) if can_choose else (default,),
        (config.shrink,) if config.shrink is not None else shrinks,
    )


def _rank_by_item_knn(fitted: ItemKNN, catalog: Catalog, targets: Targets, **more: Any) -> Ranking:
    # Each call reads whole histories and their neighbours: large chunks of items make fewer calls.
    return rank_targets(
        fitted.scorer(catalog, targets), catalog, targets, items_chunk=16_384, **more
    )
