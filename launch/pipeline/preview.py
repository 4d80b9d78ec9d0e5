"""Ranked lists for a few users while a pipeline runs, by the best recommender that is there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split, Targets, target_rows
from finetune.baselines.item_knn import DEFAULT_K, DEFAULT_SHRINK, ItemKNN
from finetune.baselines.popularity import popularity_scores
from finetune.ranker import load_ranker
from finetune.tie_break import tie_keys, topk_with_tie_break
from generate.evaluation.users import draw_targets
from generate.pseudonyms import pseudonymize
from generate.showcase import HISTORY_SHOWN, RECOMMENDED_SHOWN
from launch.pipeline.config import PipelineConfig
from launch.report.contents import UserStory
from launch.report.item_cards import item_card
from launch.report.protocol import is_control

MAX_ITEM_KNN = 20_000
"""Items up to which item-kNN takes seconds; larger catalogs are first ranked by popularity."""


@dataclass(frozen=True)
class Preview:
    """Lists for the users of the showcase, and what ranked them."""

    ranked_by: str
    stories: list[UserStory]


def best_arm(config: PipelineConfig, left: Sequence[str]) -> str:
    """The headline arm if it is not among the stages `left`, else another that reads the items' content; ""
    while none is finished."""
    finished = [
        name
        for name, arm in config.arms.items()
        if arm.kind == "recommender" and not is_control(arm) and f"finetune {name}" not in left
    ]
    return config.headline if config.headline in finished else next(iter(finished), "")


def preview(
    config: PipelineConfig, output: Path, catalog: Catalog, split: Split, arm: str
) -> Preview:
    """Lists of the recommender `arm`; without one, of a baseline that reads purchases alone."""
    count = min(config.showcase.num_users, config.showcase.num_scored_users)
    targets = draw_targets(split, config.showcase.num_scored_users, config.showcase.seed)
    targets = targets.take(np.arange(min(count, len(targets))))
    histories = [targets.history(catalog.interactions, index) for index in range(len(targets))]
    if arm:
        ranker = load_ranker(output / "recommenders" / arm, catalog)
        lists = [
            [item for item, _ in ranker.rank(np.asarray(history), RECOMMENDED_SHOWN)]
            for history in histories
        ]
        ranked_by = f"the arm {arm}"
    elif catalog.num_items <= MAX_ITEM_KNN:
        lists = _baseline_lists(catalog, split, targets)
        ranked_by = "the baseline item-kNN (bought by the same users), before any model is trained"
    else:
        lists = _baseline_lists(catalog, split, targets)
        ranked_by = "popularity, the same for all users, before any model is trained"
    bought = np.asarray(catalog.interactions.items)[target_rows(catalog.interactions, targets)]
    stories = [
        UserStory(
            user=pseudonymize(str(catalog.user_ids[int(user)])),
            history=[item_card(catalog, int(item)) for item in history[-HISTORY_SHOWN:]],
            recommended=[item_card(catalog, item) for item in ranked],
            bought_next=item_card(catalog, int(target)),
            generated_items=[],
        )
        for user, history, ranked, target in zip(
            targets.users, histories, lists, bought, strict=True
        )
    ]
    return Preview(ranked_by, stories)


@torch.no_grad()
def _baseline_lists(catalog: Catalog, split: Split, targets: Targets) -> list[list[int]]:
    """Item rows of each target's list, best first, by item-kNN or popularity."""
    if not len(targets):
        return []
    everything = slice(0, catalog.num_items)
    indices = torch.arange(len(targets))
    if catalog.num_items <= MAX_ITEM_KNN:
        fitted = ItemKNN.fit(catalog, split, DEFAULT_K, DEFAULT_SHRINK)
        scores = fitted.scorer(catalog, targets)(indices, everything)
    else:
        scores = popularity_scores(split).repeat(len(targets), 1)
    if targets.repeats != "rank":
        for index in range(len(targets)):
            history: NDArray[np.int32] = targets.history(catalog.interactions, index)
            scores[index, torch.from_numpy(history.astype(np.int64))] = -torch.inf
    keys = torch.from_numpy(tie_keys(catalog.num_items))
    return topk_with_tie_break(scores, keys, RECOMMENDED_SHOWN)[1].tolist()
