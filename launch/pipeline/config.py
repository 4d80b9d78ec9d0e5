"""Settings of a pipeline: every stage's own, and which recommenders it compares; imports no torch."""

from dataclasses import dataclass, field

from catalog.config import PositiveInt, Seed
from finetune.config import ArmConfig, FinetuneConfig
from generate.config import ShowcaseConfig
from generate.image.config import ImageConfig
from generate.text.config import TextConfig
from pretrain.config import PretrainConfig


@dataclass(frozen=True)
class WorldConfig:
    seed: Seed = 0
    """Seed of the demo world."""
    num_items: PositiveInt = 2000
    """Items in each of the two domains."""
    num_users: PositiveInt = 3000
    """Users; each of them buys in both domains."""


@dataclass(frozen=True)
class PipelineConfig:
    title: str = "Vitrine"
    """Heading of the report."""
    lead: str = ""
    """Two or three sentences on what this run does, for the report."""
    world: WorldConfig | None = None
    """Build the demo world under OUTPUT/world first; catalog paths may begin with {output}."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all arms share."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """The recommenders to compare, by name."""
    headline: str = "lora"
    """The arm that the text and image generators are trained with."""
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    showcase: ShowcaseConfig = field(default_factory=ShowcaseConfig)
    parallel_stages: PositiveInt = 1
    """Stages that run at the same time, each in a process of its own with its share of the cores (and not
    more stages than cores): faster where networks are small, for as many times the memory."""
    expected_seconds: dict[str, float] = field(default_factory=dict)
    """Stage → seconds it took on two cores, `parallel_stages` at a time; the command prints at the start how
    long the run takes, and starts first what the longest chain of stages waits for."""
