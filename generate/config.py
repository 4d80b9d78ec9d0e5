"""Settings shared by batch jobs, and those of the showcase; imports no torch."""

from dataclasses import dataclass, field

from catalog.config import CatalogConfig, PositiveInt, Seed, SplitConfig


@dataclass(frozen=True)
class BatchJobConfig:
    generator: str = ""
    """Folder of a generator artifact."""
    recommender: str = ""
    """Folder of a recommender extended from the generator's own (`vitrine extend`), for a catalog with new
    items; empty: the generator's own."""
    items: str = "top:3"
    """Items for each user: `top:K` for the best K of their ranking, or item ids separated by commas."""
    users: str = ""
    """A file with a user id on each line; empty: all users."""


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
    num_users: PositiveInt = 6
    """Users shown on the page."""
    items_per_user: PositiveInt = 2
    """Items with a text and an image for each of them."""
    num_scored_users: PositiveInt = 240
    """Users over whom the conditions own, swapped and none are compared."""
    ground_truth: str = ""
    """Folder of the demo world's ground truth; empty where it is unknown."""
    seed: Seed = 0
    """Seed of the choice of users, of swapped users and of the noise."""
