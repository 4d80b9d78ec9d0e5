"""Settings of the catalog and its split, and number types with bounds for all settings.

Imports nothing heavy, so that `--help` is fast.
"""

from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bounds:
    """The range of a numeric setting: from `low` to `high`, both included unless open."""

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
"""The range of NumPy's seeds."""
Seed63 = Annotated[int, Bounds(0, 2**63 - 1)]
"""The range of torch's seeds."""
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
    """Layout of the files; `vitrine catalog sources` lists them."""
    subset: str = ""
    """Which part of a source with several is read: a domain, a configuration, a kind of interaction."""
    roles: dict[str, Any] | None = None
    """Role → column, if the guess is wrong: {title: name, text: [colour, desc], image: null}.

    Roles: item_id, title, text, category, image, price; user_id, time, rating, review, split."""
    unknown_items: Literal["error", "drop"] = "error"
    """Handling of interactions whose item is not in the items table: an error, or they are dropped."""
    min_rating: float | None = None
    """Interactions rated lower than this are left out."""
    ties: Literal["file", "shuffle"] = "file"
    """Order of one user's interactions at the same time: as in the file, or a fixed shuffle."""
    encoding: str = "auto"
    """Encoding of text files, such as utf-8, utf-16, cp1252 or latin-1; auto: recognized by their bytes."""
    delimiter: str = "auto"
    """What separates the columns of csv, tsv and txt files; auto: recognized by all lines."""
    quote: Literal["auto", "double", "none"] = "auto"
    """Whether double quotes enclose values of delimited files, or are letters like others."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first row of delimited files names the columns."""
    dates: Literal["auto", "day-first", "month-first"] = "auto"
    """Which of 01/12/2020's numbers is the day; auto: decided by all values of the column."""
    decimal: Literal["auto", "point", "comma"] = "auto"
    """Decimal mark of prices and numbers in text; auto: decided by all values of the column."""


@dataclass(frozen=True)
class SplitConfig:
    kind: Literal["temporal", "leave-one-out", "random", "given"] = "temporal"
    """temporal: one cut time for all users; leave-one-out: each user's last item is held out; random: each
    user's interactions are assigned at random; given: a column of the interactions names the subset."""
    validation_fraction: Fraction = 0.1
    """temporal: fraction of all interactions between the two cut times; random: of each user's."""
    test_fraction: Fraction = 0.1
    """temporal: fraction of all interactions after the second cut time; random: of each user's."""
    min_history: NonNegativeInt = 1
    """A target needs at least this many interactions of its user before it."""
    seed: Seed = 0
    """random only: seed of the assignment to subsets."""
    repeats: Literal["drop", "mask", "rank"] = "drop"
    """Evaluation of targets that are in the user's history already. drop: such targets are left out, and
    items of the history are no candidates; mask: they stay and count as missed (the protocol of most
    papers); rank: items of the history are candidates like all others, in evaluation and in recommended
    lists (groceries, refills)."""
