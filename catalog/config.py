"""Settings that say which catalog is read and how it is split; light enough for `--help`.

The kinds of number that settings are made of, with their bounds, are here too.
"""

from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bounds:
    """What a number of the settings may be: from `low` to `high`, each included unless it is open."""

    low: float
    high: float = inf
    low_open: bool = False
    high_open: bool = False

    def hold(self, number: float) -> bool:
        above = number > self.low if self.low_open else number >= self.low
        below = number < self.high if self.high_open else number <= self.high
        return above and below

    def __str__(self) -> str:
        if not (self.low_open or self.high_open or self.high == inf):
            return f"from {self.low} to {self.high}"
        low = f"above {self.low}" if self.low_open else f"of at least {self.low}"
        high = f"below {self.high}" if self.high_open else f"at most {self.high}"
        return low if self.high == inf else f"{low} and {high}"


NonNegativeInt = Annotated[int, Bounds(0)]
PositiveInt = Annotated[int, Bounds(1)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
"""As NumPy takes them."""
Seed63 = Annotated[int, Bounds(0, 2**63 - 1)]
"""As torch takes them."""
NonNegativeFloat = Annotated[float, Bounds(0)]
PositiveFloat = Annotated[float, Bounds(0, low_open=True)]
Fraction = Annotated[float, Bounds(0, 1)]
FractionBelowOne = Annotated[float, Bounds(0, 1, high_open=True)]
FractionAboveZero = Annotated[float, Bounds(0, 1, low_open=True)]


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
    kind: Literal["temporal", "leave-one-out", "random", "given"] = "temporal"
    """One moment divides past from future for everybody, each person's last item is held out, each
    person's interactions are dealt at random, or a column of the interactions says what is held out."""
    validation_fraction: Fraction = 0.1
    """temporal: share of the interactions between the two moments; random: of each person's."""
    test_fraction: Fraction = 0.1
    """temporal: share of the interactions after the second moment; random: of each person's."""
    min_history: NonNegativeInt = 1
    """A target counts only if the person has at least this many interactions before it."""
    seed: Seed = 0
    """random only: which interactions are dealt to which part."""
    repeats: Literal["drop", "mask", "rank"] = "drop"
    """What is judged where a target is in the user's history already. drop: such targets are left out,
    and a user's own items are no candidates, as of a recommender that never repeats; mask: they stay
    and count as missed (the protocol of most papers); rank: a user's own items are candidates like
    all others, in evaluation and in served lists (groceries, refills)."""
