"""What several checks read of a catalog, computed once and in batches."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from catalog.doctor.arrow_compute import pc
from catalog.doctor.finding import NAMED, Finding, finding
from catalog.doctor.kinds import Unit
from catalog.doctor.picture_scan import PictureScan, scan_pictures
from catalog.hashing import hash_ids
from catalog.sources.base import RawTables

BATCH = 50_000
"""Texts that are read at a time."""
SAMPLE = 200_000
"""Texts at most that statistics of words and sentences are taken of."""
UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
"""Parts of a second that times may count."""


@dataclass
class Context:
    """A catalog under examination; shared results are computed on first access.

    Memory: a few dozen bytes for each item and interaction. Texts are read `BATCH` at a time, images one
    at a time; thumbnails lie in a temporary file.
    """

    catalog: Catalog
    raw: RawTables
    config: CatalogConfig
    folder: Path
    """Temporary, for arrays on disk."""
    now: float
    """Seconds since 1970."""
    tokenizer: str = ""
    """Name or path of a tokenizer; "": none."""
    mismatch: NDArray[np.float32] | None = None
    """(num_items,): share of other images and texts, the smaller of both, that fit better than the item's
    own; NaN without image or text; None where no encoder was given."""

    @cached_property
    def pictures(self) -> PictureScan:
        """Size, digest and perceptual hash of every image, each file decoded once."""
        return scan_pictures(self.catalog, self.folder)

    @cached_property
    def users(self) -> NDArray[np.int64]:
        """(num_interactions,): the user of each interaction."""
        interactions = self.catalog.interactions
        return np.repeat(np.arange(self.catalog.num_users), np.diff(interactions.offsets))

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """(num_items,): interactions of each item."""
        return np.bincount(self.catalog.interactions.items, minlength=self.catalog.num_items)

    @cached_property
    def time_unit(self) -> int | None:
        """Parts of a second that the times count; None where they are no dates."""
        times = self.catalog.interactions.times
        if not self.catalog.has_timestamps or not len(times):
            return None
        if "time" not in self.catalog.roles["interactions"]:
            return None
        middle = int(np.median(times))
        return next((u for u in UNITS if 100_000_000 <= middle // u < 10_000_000_000), None)

    @cached_property
    def text_lengths(self) -> NDArray[np.int64]:
        """(num_items,): characters of title and text."""
        return self.over_texts(lambda texts: pc.utf8_length(texts), np.int64)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the items by role."""
        return self.catalog.items.data.column(name)

    def text_batches(self) -> Iterator[tuple[int, pa.Array]]:
        """(row of the first, title + ". " + text) of `BATCH` items at a time; "" without both."""
        title, text = self.column("title"), self.column("text")
        for start in range(0, self.catalog.num_items, BATCH):
            parts = (batch_of(title, start), batch_of(text, start))
            yield start, join_texts(*parts)

    def review_batches(self) -> Iterator[tuple[int, pa.Array]]:
        """(row of the first, reviews) of `BATCH` interactions at a time."""
        reviews = self.catalog.interactions.reviews
        for start in range(0, 0 if reviews is None else len(reviews), BATCH):
            assert reviews is not None
            yield start, pa.array(list(reviews[start : start + BATCH]), pa.large_string())

    def over_texts(self, compute: Callable[[pa.Array], Any], dtype: type) -> NDArray:
        """What `compute` returns of each text: (num_items,)."""
        parts = [
            compute(texts).to_numpy(zero_copy_only=False).astype(dtype)
            for _, texts in self.text_batches()
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype)

    def rows_matching(self, pattern: str) -> NDArray[np.int64]:
        """Items whose text matches a regular expression (RE2)."""
        found = self.over_texts(
            lambda texts: pc.match_substring_regex(texts, pattern, ignore_case=True), np.bool_
        )
        return np.flatnonzero(found)

    def sampled_texts(self, size: int = SAMPLE) -> tuple[NDArray[np.int64], pa.Array]:
        """(rows, texts) of at most `size` items with a text, drawn uniformly, always the same ones."""
        rows = np.flatnonzero(self.text_lengths > 0)
        if len(rows) > size:
            rows = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
        parts = []
        for start, texts in self.text_batches():
            low, high = np.searchsorted(rows, [start, start + len(texts)])
            parts.append(texts.take(pa.array(rows[low:high] - start)))
        if not parts:
            return rows, pa.array([], pa.large_string())
        return rows, pa.chunked_array(parts).combine_chunks()

    def text_hashes(self, column: str) -> NDArray[np.uint64]:
        """(num_items,): a 64-bit hash of each value of a column; 0 where it is empty."""
        values = self.column(column)
        hashes = np.zeros(len(values), np.uint64)
        for start in range(0, len(values), BATCH):
            batch = batch_of(values, start)
            given = np.flatnonzero(batch.is_valid().to_numpy(zero_copy_only=False))
            texts = batch.take(pa.array(given)).to_pylist()
            hashes[start + given] = np.maximum(hash_ids(texts), 1)
        return hashes

    def item_ids(self, rows: Iterable[int]) -> list[str]:
        return self.column("item_id").take(pa.array(list(map(int, rows)), pa.int64())).to_pylist()

    def ids(self, unit: Unit, rows: Iterable[int]) -> list[str]:
        """Ids of items or users; of interactions "user, item"."""
        if unit == "items":
            return self.item_ids(rows)
        if unit == "users":
            return [str(self.catalog.user_ids[row]) for row in rows]
        items = self.catalog.interactions.items
        return [
            f"{self.catalog.user_ids[self.users[row]]}, {self.item_ids([items[row]])[0]}"
            for row in rows
        ]

    def found(
        self,
        kind: str,
        rows: NDArray,
        sentence: str,
        unit: Unit = "items",
        first: NDArray | None = None,
        remedy: str = "",
    ) -> list[Finding]:
        """A finding about `rows`, none without rows; `{n}` in the sentence is their number.

        `first`: the rows from which examples are taken, where these are not the first ones.
        """
        rows = np.unique(rows)
        if not len(rows):
            return []
        shown = rows if first is None else first
        examples = tuple(self.ids(unit, shown[:NAMED].tolist()))
        more = " …" if len(shown) > NAMED else ""
        named = f"({unit} {', '.join(examples)}{more})"
        if unit == "interactions":
            named = f"({'; '.join(examples)}{more})"
        what = f"{sentence.format(n=f'{len(rows):,}')} {named}"
        return [
            finding(
                kind, what, count=len(rows), examples=examples, unit=unit, rows=rows, remedy=remedy
            )
        ]


def batch_of(column: pa.ChunkedArray, start: int) -> pa.Array:
    """`BATCH` values from `start` on as one array of large strings."""
    return column.slice(start, BATCH).cast(pa.large_string()).combine_chunks()


def join_texts(title: pa.Array, text: pa.Array) -> pa.Array:
    """title + ". " + text of each item; one of them where the other is null, "" without both."""
    joined = pc.binary_join_element_wise(title, text, pa.scalar(". ", pa.large_string()))
    return pc.fill_null(pc.coalesce(joined, title, text), pa.scalar("", pa.large_string()))


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vitrine-doctor-")


def current_time() -> float:
    return time.time()
