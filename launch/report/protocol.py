"""The evaluation protocol as text, and which metrics and targets a report shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split, target_rows
from finetune.config import ArmConfig

FEW_COLD = 20
"""Cold items' metrics are shown from this many cold targets on; below, they are mostly noise."""
REPEAT_COLUMNS = ("new/recall@10", "repeated/recall@10")
PROTOCOL = {
    "temporal": (
        "One moment divides past from future for all users; what a user bought first after it is "
        "the target"
    ),
    "leave-one-out": "Each user's last item is the target",
    "random": (
        "Each user's interactions are assigned to training, validation and test at random; one of the "
        "test part is the target, the training part the history"
    ),
    "given": (
        "The table itself says what is held out; what a user bought first of its test part is the "
        "target, the training part the history"
    ),
}
CONTENT_READ = {
    "catalog": (
        "Whitening, vocabulary and semantic ids are computed from the content of all items of the "
        "catalog, also of those that no user bought before the test period; no interaction of that "
        "period is read."
    ),
    "trained": (
        "Whitening, vocabulary and semantic ids are computed from the content of items that were bought "
        "in training."
    ),
}
"""By `finetune.content_statistics`."""


def candidates_text(catalog: Catalog, split: Split) -> str:
    """Which items are ranked, what becomes of repeats, and how many targets these are."""
    repeated, targets = split.num_repeated.get("test", 0), len(split.test)
    repeats = split.config.repeats
    of = f"{repeated:,} of {targets + (repeated if repeats == 'drop' else 0):,} test targets repeat an"
    of += " item of their user's history"
    treatment = {
        "drop": "and are left out",
        "mask": "and count as missed",
        "rank": "and are ranked",
    }
    whose = "" if repeats == "rank" else " except those already in the user's history"
    own_items = ", also those of the user's history" if repeats == "rank" else ""
    return (
        f"All {catalog.num_items:,} items are ranked{whose}{own_items}; {of} {treatment[repeats]} (repeats: "
        f"{repeats}). Equal scores are ordered by a fixed random key."
    )


def available_columns(columns: Sequence[str], catalog: Catalog, split: Split) -> list[str]:
    """Those of `columns` for which there are enough targets."""
    few = {"cold/"} if cold_targets(catalog, split).sum() < FEW_COLD else set()
    if split.config.repeats == "drop" or not split.num_repeated.get("test", 0):
        few |= {"new/", "repeated/"}
    return [name for name in columns if not name.startswith(tuple(few))]


def is_control(arm: ArmConfig) -> bool:
    """Whether the arm is a baseline, or does not use the content of the items."""
    return arm.kind == "baseline" or arm.features not in ("content", "content+id")


def cold_targets(catalog: Catalog, split: Split) -> NDArray[np.bool_]:
    """Which test targets were never bought in training: bool (targets,)."""
    interactions = catalog.interactions
    return ~split.warm_items[interactions.items[target_rows(interactions, split.test)]]
