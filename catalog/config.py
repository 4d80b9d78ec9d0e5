"""Settings that say which catalog is read and how it is split; light enough for `--help`."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class CatalogConfig:
    path: str = ""
    """Folder of the catalog, or a Hugging Face dataset where `source` is huggingface."""
    source: str = "folder"
    """How the tables are laid out: folder, movielens or huggingface (see catalog/sources)."""
    roles: dict[str, Any] | None = None
    """Role → column where the guess is wrong: {title: name, text: [colour, desc], image: null}.

    Roles: item_id, title, text, category, image, price; user_id, time, rating, review."""
    unknown_items: Literal["error", "drop"] = "error"
    """What to do with interactions that name an item the items table lacks."""
    min_rating: float | None = None
    """Interactions rated lower than this are left out."""
    ties: Literal["file", "shuffle"] = "file"
    """Order of one person's interactions at the same time: as in the file, or a fixed shuffle."""


@dataclass(frozen=True)
class SplitConfig:
    kind: Literal["global-time", "leave-one-out"] = "global-time"
    """One moment divides past from future for everybody, or each person's last item is held out."""
    validation_share: float = 0.1
    """global-time only: share of the interactions between the two moments."""
    test_share: float = 0.1
    """global-time only: share of the interactions after the second moment."""
    min_history: int = 1
    """A target counts only if the person has at least this many interactions before it."""
