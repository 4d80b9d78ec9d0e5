"""Puts each person's training interactions first, for splits that are not cuts through time.

Everything that learns reads a history up to a position. Where training interactions lie between those
held out, no position divides them, so the histories themselves are put in another order: training,
validation, test. Nothing that reads a prefix then needs to know how the split came about.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.interactions import Interactions

TRAIN, VALIDATION, TEST = range(3)
SUBSET_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
"""What a table may call the parts, in small or large letters."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReorderedInteractions(Interactions):
    """Histories in the order training, validation, test; the training part in the order of time."""

    config: SplitConfig
    """The split they are arranged for; no other may be made of them."""
    parts: NDArray[np.int8]
    """(num_interactions,): TRAIN, VALIDATION or TEST."""
    source_rows: NDArray[np.int64]
    """(num_interactions,): where each lies in the catalog's own order."""


def reorder_histories(catalog: Catalog, config: SplitConfig) -> Catalog:
    """The catalog as the split reads it: itself, or for random and given splits with `ReorderedInteractions`.

    random deals each person's interactions out by the shares, rounded down; who has too few for a
    part still gives it one, the test part first, as long as one is left to learn from (as RecBole's
    random split by ratio does). given goes by the interactions' column `split`.
    Raises VitrineError for impossible shares, and where the column is missing or says something else.
    """
    if config.kind not in SPLITTERS:
        return catalog
    own = catalog.interactions
    users = np.repeat(np.arange(catalog.num_users), np.diff(own.offsets))
    parts, places = SPLITTERS[config.kind](catalog, users, config)
    rows = np.lexsort((places, parts, users))
    arranged = ReorderedInteractions(
        offsets=own.offsets,
        items=own.items[rows],
        times=own.times[rows],
        reviews=None if own.reviews is None else _Picked(own.reviews, rows),
        ratings=None if own.ratings is None else own.ratings[rows],
        config=config,
        parts=parts[rows],
        source_rows=rows,
    )
    return replace(catalog, interactions=arranged)


def check_fractions(config: SplitConfig) -> None:
    """VitrineError unless both shares are above 0 and leave something to learn from."""
    validation, test = config.validation_fraction, config.test_fraction
    if validation <= 0 or test <= 0 or validation + test >= 1:
        raise VitrineError(
            f"validation_fraction {validation} and test_fraction {test} must be above 0 and sum to less "
            "than 1."
        )


Assignment = tuple[NDArray[np.int8], NDArray[np.int64]]
"""Each interaction's part, and its place within the person's part, (num_interactions,) each."""


def _random(catalog: Catalog, users: NDArray[np.int64], config: SplitConfig) -> Assignment:
    check_fractions(config)
    lengths = np.diff(catalog.interactions.offsets)
    shares = np.array([config.validation_fraction, config.test_fraction])
    sizes = (lengths[:, None] * shares).astype(np.int64)  # (num_users, 2)
    left = lengths - sizes.sum(axis=1)
    for part in (1, 0):
        lacks = (sizes[:, part] == 0) & (left > 1)
        sizes[lacks, part] = 1
        left[lacks] -= 1
    keys = np.random.default_rng(config.seed).permutation(len(users))
    drawn = np.empty_like(keys)
    drawn[np.lexsort((keys, users))] = np.arange(len(users))
    drawn -= catalog.interactions.offsets[users]  # each one's place in the person's own draw
    parts = (drawn >= left[users]).astype(np.int8) + (drawn >= (left + sizes[:, 0])[users])
    # What is held out stays as it was drawn: the first of a part is then any of them.
    return parts.astype(np.int8), np.where(parts == TRAIN, np.arange(len(users)), keys)


def _given(catalog: Catalog, users: NDArray[np.int64], config: SplitConfig) -> Assignment:
    said = catalog.interactions.split_labels
    if said is None:
        raise VitrineError(
            f"the interactions of {catalog.name} have no column that says their part; add a column "
            "split that holds train, validation and test, name it with roles: {split: <column>}, or "
            "set another split.kind."
        )
    names = pa.array(list(SUBSET_NAMES), said.type)
    found = pc.index_in(pc.utf8_lower(said), value_set=names)
    if found.null_count:
        first = said[pc.index(pc.is_null(found), True).as_py()].as_py()
        raise VitrineError(
            f"the split column of {catalog.name} says {'nothing' if first is None else repr(first)} "
            f"in the first of {found.null_count:,} rows; write train, validation or test in each."
        )
    parts = np.array(list(SUBSET_NAMES.values()), dtype=np.int8)[found.to_numpy()]
    for part, name in ((TRAIN, "train"), (TEST, "test")):
        if not (parts == part).any():
            raise VitrineError(
                f"the split column of {catalog.name} says {name} nowhere; a split needs both train "
                "and test, or set another split.kind."
            )
    return parts, np.arange(len(users))


SPLITTERS: dict[str, Callable[[Catalog, NDArray[np.int64], SplitConfig], Assignment]] = {
    "random": _random,
    "given": _given,
}


class _Picked(Sequence[str | None]):
    """Texts in another order, each still read when asked for."""

    def __init__(self, texts: Sequence[str | None], rows: NDArray[np.int64]) -> None:
        self.texts, self.rows = texts, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> str | None: ...
    @overload
    def __getitem__(self, place: slice) -> list[str | None]: ...
    def __getitem__(self, place: int | slice) -> str | list[str | None] | None:
        if isinstance(place, slice):
            return [self.texts[int(row)] for row in self.rows[place]]
        return self.texts[int(self.rows[place])]
