"""What a hyperparameter search of one arm found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.config import FinetuneConfig
from launch.settings import apply_overrides


@dataclass(frozen=True)
class SearchResult:
    """Result of one arm's hyperparameter search."""

    trials: int
    diverged: int
    """Of the trials, those that ended without a figure."""
    space: dict[str, str]
    """Setting → its range, in words."""
    chosen: dict[str, Any]
    """Setting → its value in the best trial."""
    score: float
    """The best trial's NDCG@10 on validation."""

    def settings(self, config: FinetuneConfig) -> FinetuneConfig:
        """`config` with the hyperparameters of the best trial."""
        return with_values(config, self.chosen)


def with_values(config: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """`config` with the settings of `values`, by dotted name."""
    return apply_overrides(config, [f"--{name}={value}" for name, value in values.items()])


def in_short(value: Any) -> str:
    """The value as text, a number with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
