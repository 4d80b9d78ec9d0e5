"""Settings of an import: how the source is read, and which interactions are kept; imports nothing heavy."""

from dataclasses import dataclass, field

from catalog.config import CatalogConfig, NonNegativeInt, PositiveFloat, Seed
from catalog.fetching.config import FetchConfig


@dataclass(frozen=True)
class ImportConfig(CatalogConfig):
    languages: tuple[str, ...] = ()
    """Items whose title and text are clearly in none of these languages (ISO 639-1 codes) are left out,
    and their interactions; empty: all are kept."""
    since: str = ""
    """Interactions before this date (2020-01-31, UTC) are left out."""
    until: str = ""
    """Interactions on this date or later are left out."""
    sample_users: PositiveFloat | None = None
    """Below 1 a fraction of the users, otherwise their number; drawn by a hash of the id."""
    seed: Seed = 0
    """Seed of the sample of users."""
    drop_repeats: bool = False
    """Of a user's interactions with one item the first alone is kept."""
    min_user_interactions: NonNegativeInt = 0
    """Users with fewer interactions are left out (k-core, repeated until nothing changes)."""
    min_item_interactions: NonNegativeInt = 0
    """Items with fewer interactions are left out, also of the items table."""
    fetch_images: bool = False
    """Pictures that are named by web address (http, https) are fetched; no proxy is used."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
