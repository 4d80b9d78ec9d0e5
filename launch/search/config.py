"""Settings of a hyperparameter search; imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from catalog.config import NonNegativeInt, Seed


@dataclass(frozen=True)
class SearchConfig:
    trials: NonNegativeInt = 0
    """Trials for each arm, scored on validation alone, before it is trained with the best; 0: no search."""
    steps: NonNegativeInt = 0
    """Steps of each trial; 0: as many as the arm is trained for."""
    seed: Seed = 0
    """Seed of the proposals, and of the trials' trainings."""
    space: dict[str, Any] = field(default_factory=dict)
    """Setting → [low, high], [low, high, log] or [a, b, …, choice], beside what is searched anyway,
    for every arm that reads the setting; null: not searched."""
