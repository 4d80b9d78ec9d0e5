"""Reorders each user's interactions by subset, for random and given splits.

Training reads a history up to a position. Where held-out interactions lie between training interactions,
no position divides them, so the histories themselves are reordered: training, validation, test. Code
that reads a prefix then needs no knowledge of the split.
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
"""Names of the subsets in a split column, compared in lower case."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReorderedInteractions(Interactions):
    """Histories in the order training, validation, test; the training part is ordered by time."""

    config: SplitConfig
    """The split they are reordered for; `make_split` refuses any other."""
    parts: NDArray[np.int8]
    """(num_interactions,): TRAIN, VALIDATION or TEST."""
    source_rows: NDArray[np.int64]
    """(num_interactions,): row of each interaction in the catalog's own order."""


def reorder_histories(catalog: Catalog, config: SplitConfig) -> Catalog:
    """The catalog with `ReorderedInteractions` for random and given splits; otherwise the catalog itself.

    random assigns each user's interactions by the fractions, rounded down; a user with too few for a
    subset still gives it one, the test subset first, as long as one is left for training (as in
    RecBole's random split by ratio). given follows the interactions' column `split`.
    Raises VitrineError for impossible fractions, and where the column is missing or holds other values.
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
        reviews=None if own.reviews is None else _ReorderedTexts(own.reviews, rows),
        ratings=None if own.ratings is None else own.ratings[rows],
        config=config,
        parts=parts[rows],
        source_rows=rows,
    )
    return replace(catalog, interactions=arranged)


def check_fractions(config: SplitConfig) -> None:
    """Raises VitrineError unless both fractions are above 0 and leave some training data."""
    validation, test = config.validation_fraction, config.test_fraction
    if validation <= 0 or test <= 0 or validation + test >= 1:
        raise VitrineError(
            f"validation_fraction {validation} and test_fraction {test} must be above 0 and sum to less "
            "than 1."
        )


Assignment = tuple[NDArray[np.int8], NDArray[np.int64]]
"""Each interaction's subset, and its position within the user's subset: (num_interactions,) each."""


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
    drawn -= catalog.interactions.offsets[users]  # place in the user's own random order
    parts = (drawn >= left[users]).astype(np.int8) + (drawn >= (left + sizes[:, 0])[users])
    # Held-out interactions stay in drawn order: the first of a subset is then a random one.
    return parts.astype(np.int8), np.where(parts == TRAIN, np.arange(len(users)), keys)


def _given(catalog: Catalog, users: NDArray[np.int64], config: SplitConfig) -> Assignment:
    labels = catalog.interactions.split_labels
    if labels is None:
        raise VitrineError(
            f"the interactions of {catalog.name} have no split column; add a column "
            "split that holds train, validation and test, name it with roles: {split: <column>}, or "
            "set another split.kind."
        )
    names = pa.array(list(SUBSET_NAMES), labels.type)
    found = pc.index_in(pc.utf8_lower(labels), value_set=names)
    if found.null_count:
        first = labels[pc.index(pc.is_null(found), True).as_py()].as_py()
        raise VitrineError(
            f"the split column of {catalog.name} holds {'nothing' if first is None else repr(first)} "
            f"in the first of {found.null_count:,} rows; write train, validation or test in each."
        )
    parts = np.array(list(SUBSET_NAMES.values()), dtype=np.int8)[found.to_numpy()]
    for part, name in ((TRAIN, "train"), (TEST, "test")):
        if not (parts == part).any():
            raise VitrineError(
                f"the split column of {catalog.name} never holds {name}; a split needs both train "
                "and test, or set another split.kind."
            )
    return parts, np.arange(len(users))


SPLITTERS: dict[str, Callable[[Catalog, NDArray[np.int64], SplitConfig], Assignment]] = {
    "random": _random,
    "given": _given,
}


class _ReorderedTexts(Sequence[str | None]):
    """Texts in another order, each read on access."""

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
