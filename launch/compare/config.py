"""Settings of a comparison of recommenders; imports no torch."""

from dataclasses import dataclass, field

from catalog.config import PositiveInt
from finetune.config import ArmConfig, FinetuneConfig
from launch.search.config import SearchConfig


@dataclass(frozen=True)
class CompareConfig:
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all arms share: encoder, catalog, split, budget."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """The arms by name; empty: baselines, controls, each modality alone and every transfer mode."""
    include: str = ""
    """Names of the arms to run, with commas between; empty: all."""
    missing: str = ""
    """Percentages, with commas between, such as 0,30,60,90: instead of those arms, compares the ways to
    impute a modality (`finetune.missing_modality`) that so many items lack."""
    reference: str = ""
    """An arm that each of the others is compared with, beside the contrasts that are always tested."""
    seeds: PositiveInt = 3
    """Trainings of each arm, with consecutive seeds."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Hyperparameter search with as many trials for each arm; without it all have the shared settings."""
