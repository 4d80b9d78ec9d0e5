"""What a model was shown of people's histories, small enough to be kept beside it.

Figures on interactions that a model was pretrained on are worth nothing. A sketch of them travels
with the encoder, so that a later stage can tell, also where the shop was exported again, cut
otherwise, or is one of several.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog, Interactions
from catalog.splits import Split, training_mask

KEPT = 65_536
"""Marks kept at most: half a megabyte."""
CHUNK = 1 << 20
"""Interactions hashed at once."""
SEEN_FILE = "seen.npy"


@dataclass(frozen=True)
class Seen:
    """The smallest `KEPT` marks of what was seen (Broder's bottom-k sketch, 1997).

    Marks are hashes, so whoever has a mark no larger than the largest kept can be told for certain
    whether it was seen; with fewer than `KEPT` in all, everybody can.
    """

    marks: NDArray[np.uint64]
    """(kept,), ascending, distinct."""

    @classmethod
    def of(cls, marks: NDArray[np.uint64]) -> Self:
        return cls(np.unique(marks)[:KEPT])

    @classmethod
    def training(cls, catalog: Catalog, split: Split) -> Self:
        """The training part of every history."""
        rows = np.flatnonzero(training_mask(catalog.interactions, split.train_end))
        seen = cls.of(np.empty(0, dtype=np.uint64))
        for start in range(0, len(rows), CHUNK):
            marks = interaction_marks(catalog, rows[start : start + CHUNK])
            seen = cls.of(np.concatenate([seen.marks, marks]))
        return seen

    def save(self, folder: Path) -> None:
        np.save(folder / SEEN_FILE, self.marks, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(np.load(folder / SEEN_FILE, allow_pickle=False))

    def checked(self, marks: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For each of `marks`: whether it can be told, and whether it was seen; bool (n,) each."""
        if len(self.marks) < KEPT:
            told = np.ones(len(marks), dtype=bool)
        else:
            told = marks <= self.marks[-1]
        return told, np.isin(marks, self.marks)


def interaction_marks(catalog: Catalog, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of (person, item, when) for each of `rows`: uint64 (rows,).

    When is the time, or, where times only order a history, how often the person had taken the item
    before. Ids count, not row numbers: another export of the same shop gives the same marks.
    """
    interactions = catalog.interactions
    users = np.searchsorted(interactions.offsets, rows, side="right") - 1
    items = interactions.items[rows].astype(np.int64)
    people, person = np.unique(users, return_inverse=True)
    things, thing = np.unique(items, return_inverse=True)
    ids = catalog.items.select(things)["item_id"][:]
    when = interactions.times[rows] if catalog.timed else _repeats(interactions, rows)
    marks = _mixed(_id_hashes(catalog.user_ids[people])[person])
    marks = _mixed(marks ^ _id_hashes(ids)[thing])
    return _mixed(marks ^ when.astype(np.int64).view(np.uint64))


def _repeats(interactions: Interactions, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often the person had taken the item before, for each of `rows`."""
    if not len(rows):
        return rows
    offsets = interactions.offsets
    start = int(offsets[np.searchsorted(offsets, rows.min(), side="right") - 1])
    items = interactions.items[start : int(rows.max()) + 1].astype(np.int64)
    users = np.searchsorted(offsets, np.arange(start, start + len(items)), side="right")
    order = np.lexsort((interactions.times[start : start + len(items)], items, users))
    places = np.arange(len(items))
    new = np.ones(len(items), dtype=bool)
    new[1:] = (np.diff(items[order]) != 0) | (np.diff(users[order]) != 0)
    counts = np.empty(len(items), dtype=np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return counts[rows - start]


def _id_hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads every bit over all (the finaliser of SplitMix64, Steele et al., 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
