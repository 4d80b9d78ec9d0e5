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

    Roles: item_id, title, text, category, image, price; user_id, time, rating, review, split."""
    unknown_items: Literal["error", "drop"] = "error"
    """What to do with interactions that name an item the items table lacks."""
    min_rating: float | None = None
    """Interactions rated lower than this are left out."""
    ties: Literal["file", "shuffle"] = "file"
    """Order of one person's interactions at the same time: as in the file, or a fixed shuffle."""


@dataclass(frozen=True)
class SplitConfig:
    kind: Literal["global-time", "leave-one-out", "random", "given"] = "global-time"
    """One moment divides past from future for everybody, each person's last item is held out, each
    person's interactions are dealt at random, or a column of the interactions says what is held out."""
    validation_share: float = 0.1
    """global-time: share of the interactions between the two moments; random: of each person's."""
    test_share: float = 0.1
    """global-time: share of the interactions after the second moment; random: of each person's."""
    min_history: int = 1
    """A target counts only if the person has at least this many interactions before it."""
    seed: int = 0
    """random only: which interactions are dealt to which part."""
