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
    """Percents, with commas between, such as 0,30,60,90: instead of those arms, what a shop does
    about so many items that lack a modality (`finetune.missing_modality`)."""
    reference: str = ""
    """An arm that each of the others is compared with, beside the differences that are always told."""
    seeds: PositiveInt = 3
    """Trainings of each arm, with seeds one after the other."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Which settings each arm is given: the shared ones, or the best of as many trials for each."""
