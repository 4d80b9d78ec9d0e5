"""Settings of the showcase: for whom it makes words and pictures, and how they are judged."""

from dataclasses import dataclass, field

from catalog.config import CatalogConfig, PositiveInt, Seed, SplitConfig


@dataclass(frozen=True)
class ShowcaseConfig:
    recommender: str = ""
    """Folder of a recommender artifact."""
    text: str = ""
    """Folder of a text-generator artifact."""
    image: str = ""
    """Folder of an image-generator artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    people: PositiveInt = 6
    """People on the page."""
    creations: PositiveInt = 2
    """Items dressed for each of them."""
    scored_people: PositiveInt = 240
    """People over whom own, swapped and no person are compared."""
    truth: str = ""
    """Folder of the demo world's truth; empty where nobody knows it."""
    seed: Seed = 0
    """Chooses people, partners and noise."""
