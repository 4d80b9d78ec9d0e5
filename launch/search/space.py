"""The search space: which hyperparameters of which arm, and their ranges; knows nothing about trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import VitrineError, did_you_mean
from catalog.nested import flatten
from finetune.config import ArmConfig, FinetuneConfig
from launch.settings import describe, field_types
from launch.values import Mismatch, nested_class, type_in_words, typed

RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
PAIRWISE = {
    "matrix_factorization.learning_rate": [1e-3, 1e-1, "log"],
    "matrix_factorization.regularization": [1e-4, 1e-1, "log"],
}
SPACES: dict[str, dict[str, Any]] = {
    "vitrine": {RATE: [1e-4, 1e-2, "log"], DECAY: [1e-3, 0.3, "log"], "dropout": [0, 0.5]},
    "semantic-ids": {RATE: [1e-4, 1e-2, "log"], DECAY: [1e-3, 0.3, "log"], "dropout": [0, 0.5]},
    "bpr-mf": PAIRWISE,
    "vbpr": PAIRWISE,
    "item-knn": {"item_knn.k": [10, 500, "log"], "item_knn.shrink": [1, 1000, "log"]},
    "popularity": {},
}
"""What is searched of each model unless settings say otherwise."""


@dataclass(frozen=True)
class Range:
    """From low to high, both of them included."""

    low: float
    high: float
    log: bool = False
    """Evenly over the logarithm."""
    whole: bool = False
    """Whole numbers only."""

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


def space_of(arm: ArmConfig, given: Mapping[str, Any]) -> dict[str, Range | Choice]:
    """The search space of an arm: its model's space, changed by those of `given` that it reads.

    `given` is written as in settings: [low, high], [low, high, log], [a, b, …, choice], or None where
    a setting is to be left alone. Raises VitrineError for anything else.
    """
    changed = flatten(given)
    known = [option.key for option in describe(FinetuneConfig)]
    searchable = [name for name in known if name.startswith(SEARCHABLE)]
    for name in changed:
        if name not in searchable:
            raise VitrineError(
                f"search.space names {name!r}, which is no setting that arms are searched by."
                f"{did_you_mean(name, searchable)}"
            )
    ranges = {
        name: _range(name, written)
        for name, written in sorted({**SPACES[arm.model], **changed}.items())
        if written is not None
    }
    own = _read_by(arm)
    return {name: range_ for name, range_ in ranges.items() if name.startswith(own)}


def _read_by(arm: ArmConfig) -> tuple[str, ...]:
    """How the settings begin that an arm reads, and that leave its task and its budget alone."""
    if arm.model != "vitrine":
        return OF_OTHERS[arm.model]
    if arm.transfer == "zero-shot":
        return ()
    read = ["optimizer.", "dropout", "negatives"]
    if arm.features not in ("id", "random") and arm.transfer != "frozen":
        read += ["tower_rate", "projection_rate", "alignment", "data.encode_items"]
    if arm.transfer == "full":
        read.append("encoder_warmup")
    if arm.transfer == "lora":
        read.append("lora.")
    if arm.features == "content+id":
        read.append("id_width")
    return tuple(read)


OF_OTHERS: dict[str, tuple[str, ...]] = {
    "semantic-ids": ("optimizer.", "dropout", "semantic_ids."),
    "popularity": (),
    "item-knn": ("item_knn.",),
    "bpr-mf": ("matrix_factorization.",),
    "vbpr": ("matrix_factorization.",),
}
SEARCHABLE = (
    *_read_by(ArmConfig(features="content+id")),
    "item_knn.",
    "semantic_ids.",
    "matrix_factorization.",
)


def _range(name: str, written: Any) -> Range | Choice:
    hint = _type_of(name)
    values = list(written) if isinstance(written, (list, tuple)) else []
    how = values.pop() if values and values[-1] in ("log", "choice") else ""
    for value in values:
        try:
            typed(hint, value)
        except Mismatch:
            raise VitrineError(
                f"search.space.{name} is {written!r}, with {value!r} in it; each value must be "
                f"{type_in_words(hint)}"
            ) from None
    if how == "choice" and len(values) > 1:
        return Choice(tuple(values))
    if how == "choice" or len(values) != 2 or not all(isinstance(v, (int, float)) for v in values):
        raise VitrineError(
            f"search.space.{name} is {written!r}; write [low, high], [low, high, log] or "
            "[a, b, …, choice]"
        )
    low, high = values
    if not low < high or (how == "log" and low <= 0):
        raise VitrineError(
            f"search.space.{name} goes from {low:g} to {high:g}; low must be below high"
            f"{', and above 0 for log' if how else ''}"
        )
    return Range(low, high, how == "log", whole=type_in_words(hint).startswith("a whole number"))


def _type_of(name: str) -> Any:
    hint: Any = FinetuneConfig
    for part in name.split("."):
        hint = field_types(nested_class(hint) or FinetuneConfig)[part]
    return hint
