"""The protocol of a comparison in words: targets, budget, seeds, inference and search."""

from collections.abc import Mapping

import numpy as np

from catalog.catalog import Catalog
from catalog.splits import Split, target_rows
from finetune.config import ArmConfig
from launch.compare.config import CompareConfig
from launch.report.protocol import CONTENT_READ, PROTOCOL, candidates_text
from launch.search.result import SearchResult


def protocol_text(config: CompareConfig, catalog: Catalog, split: Split) -> str:
    """Targets, candidates, training budget, seeds and inference, in words."""
    common = config.finetune
    targets = catalog.interactions.items[target_rows(catalog.interactions, split.test)]
    times = split.train_counts[targets] if len(targets) else np.zeros(1)
    return (
        f"{PROTOCOL[common.split.kind]}. {candidates_text(catalog, split)} "
        f"{len(split.test):,} targets; {split.cold_fractions['test']:.0%} of them "
        f"were never bought in training (cold), half of them {np.median(times):,.0f} times or more (the more "
        f"often, the better their id embeddings). Trained arms: {common.trainer.max_steps:,} steps of "
        f"{common.data.rows} packed rows, the weights with the best validation, "
        f"{config.seeds} {'seed' if config.seeds == 1 else 'seeds'}. {_inference_text(config.seeds)} "
        f"{CONTENT_READ[common.content_statistics]} Time and memory: of fitting and ranking, on this machine."
    )


def _inference_text(seeds: int) -> str:
    """How intervals and p-values are computed, and what so many seeds can show."""
    if seeds == 1:
        return (
            "Intervals and p (Student's t, corrected by Holm over all differences of the table) are "
            "over users alone: with one seed training noise is not measured, and the same arms "
            "trained again may come out the other way."
        )
    return (
        "Intervals (95 %) and p (Student's t, corrected by Holm over all differences of the table) "
        f"are over users and trainings, both as random draws: with {seeds} seeds an arm's training "
        f"noise is known from {seeds - 1} {'degree' if seeds == 2 else 'degrees'} of freedom, so that "
        "where it outweighs the users' only differences of many times the noise are found."
    )


def search_text(
    config: CompareConfig, arms: Mapping[str, ArmConfig], searches: Mapping[str, SearchResult]
) -> str:
    """How hyperparameters were searched; empty where none were."""
    if not searches:
        return ""
    search, alone = config.search, [name for name in arms if name not in searches]
    steps = f"{search.steps:,} steps" if search.steps else "as many steps as the arm"
    return (
        f" Settings: the best of {search.trials} trials for each arm, by NDCG@10 on validation alone, "
        f"in a catalog from which the test targets were cut off; {steps} each, proposed by TPE with "
        f"seed {search.seed}." + (f" Nothing was searched for {', '.join(alone)}." if alone else "")
    )
