"""What several checks read of a catalog, computed once and in batches."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.doctor.arrow_compute import pc
from catalog.doctor.finding import NAMED, Finding, finding
from catalog.doctor.groups import distinct, first_of_runs
from catalog.doctor.kinds import Unit
from catalog.doctor.picture_scan import PictureScan, scan_pictures
from catalog.hashing import hash_ids
from catalog.memory import release_buffers
from catalog.progress import track

BATCH = 50_000
"""Texts that are read at a time."""
TEXT_BYTES = 1 << 25
"""Bytes of the texts that are looked at together."""
CHUNKS_READ = 8
"""Chunks of an Arrow file, of 65,536 items, whose pages leave memory together."""
SAMPLE = 200_000
"""Texts at most that statistics of words and sentences are taken of."""
TIMES = 1_000_000
"""Times at most that medians and quantiles are taken of."""
UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
"""Parts of a second that times may count."""


@dataclass
class Context:
    """A catalog under examination; shared results are computed on first access.

    Memory: about a hundred bytes for each item and a few for each user. Texts are read `BATCH` at a time,
    interactions in `Interactions.chunks`, images one at a time; thumbnails and the bands of texts lie in
    temporary files.
    """

    catalog: Catalog
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
    def popularity(self) -> NDArray[np.int32]:
        """(num_items,): interactions of each item."""
        counts = np.zeros(self.catalog.num_items, np.int32)
        for _, rows in self.catalog.interactions.chunks():
            np.add.at(counts, self.catalog.interactions.items[rows], np.int32(1))
        return counts

    @cached_property
    def sampled_times(self) -> NDArray[np.int64]:
        """`TIMES` times at most, evenly spaced over all interactions: (n,)."""
        interactions = self.catalog.interactions
        step = max(1, -(-len(interactions) // TIMES))
        parts = [
            interactions.times[rows][-rows.start % step :: step].copy()
            for _, rows in interactions.chunks()
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    @cached_property
    def time_unit(self) -> int | None:
        """Parts of a second that the times count; None where they are no dates."""
        if not self.catalog.has_timestamps or not len(self.catalog.interactions):
            return None
        if "time" not in self.catalog.roles["interactions"]:
            return None
        middle = int(np.median(self.sampled_times))
        return next((u for u in UNITS if 100_000_000 <= middle // u < 10_000_000_000), None)

    @cached_property
    def text_lengths(self) -> NDArray[np.int32]:
        """(num_items,): characters of title and text."""
        return self.over_texts(lambda texts: pc.utf8_length(texts), np.int32)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the items by role."""
        return self.catalog.items.data.column(name)

    def batches(self, *names: str) -> Iterator[tuple[int, list[pa.Array]]]:
        """(row of the first, values of columns as large strings) of `BATCH` items at a time, which then
        leave memory."""
        columns = [self.column(name) for name in names]
        starts = range(0, self.catalog.num_items, BATCH)
        for start in track(starts, f"Checking {' and '.join(names)} of items"):
            parts = [column.slice(start, BATCH) for column in columns]
            yield start, [part.cast(pa.large_string()).combine_chunks() for part in parts]
            release_buffers(*(chunk for part in parts for chunk in part.chunks))

    def text_batches(self) -> Iterator[tuple[int, pa.Array]]:
        """(row of the first, title + ". " + text) of `BATCH` items at a time, fewer where they are long;
        "" without both."""
        for start, columns in self.batches("title", "text"):
            for first, texts in blocks(join_texts(*columns), TEXT_BYTES):
                yield start + first, texts

    def taken(self, name: str, rows: NDArray[np.int64]) -> pa.Array:
        """Values of a column, as large strings, of ascending rows (n,)."""
        parts, read, start = [pa.array([], pa.large_string())], [], 0
        for chunk in self.column(name).chunks:
            low, high = np.searchsorted(rows, [start, start + len(chunk)])
            if high > low:
                parts.append(chunk.take(pa.array(rows[low:high] - start)).cast(pa.large_string()))
                read.append(chunk)
            if len(read) == CHUNKS_READ:
                release_buffers(*read)
                read.clear()
            start += len(chunk)
        release_buffers(*read)
        return pa.concat_arrays(parts)

    def review_batches(self) -> Iterator[tuple[int, pa.Array]]:
        """(row of the first, reviews) of `BATCH` interactions at a time."""
        reviews = self.catalog.interactions.reviews
        for start in range(0, 0 if reviews is None else len(reviews), BATCH):
            assert reviews is not None
            yield start, pa.array(list(reviews[start : start + BATCH]), pa.large_string())

    def over_texts(self, compute: Callable[[pa.Array], Any], dtype: type) -> NDArray:
        """What `compute` returns of each text: (num_items,)."""
        found = np.empty(self.catalog.num_items, dtype)
        for start, texts in self.text_batches():
            found[start : start + len(texts)] = compute(texts).to_numpy(zero_copy_only=False)
        return found

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
        return rows, self.texts_of(rows)

    def texts_of(self, rows: NDArray[np.int64]) -> pa.Array:
        """The texts, as of `text_batches`, of ascending rows (n,)."""
        return join_texts(self.taken("title", rows), self.taken("text", rows))

    def text_hashes(self, column: str) -> NDArray[np.uint64]:
        """(num_items,): a 64-bit hash of each value of a column; 0 where it is empty."""
        hashes = np.zeros(self.catalog.num_items, np.uint64)
        for start, (batch,) in self.batches(column):
            given = np.flatnonzero(batch.is_valid().to_numpy(zero_copy_only=False))
            hashes[start + given] = np.maximum(hash_texts(batch.drop_null()), 1)
        return hashes

    def users_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The users (n,) of interactions."""
        return np.searchsorted(self.catalog.interactions.offsets, rows, side="right") - 1

    def item_ids(self, rows: Iterable[int]) -> list[str]:
        column = self.column("item_id")
        return [column[int(row)].as_py() for row in rows]

    def ids(self, unit: Unit, rows: Iterable[int]) -> list[str]:
        """Ids of items or users; of interactions "user, item"."""
        if unit == "items":
            return self.item_ids(rows)
        if unit == "users":
            return [str(self.catalog.user_ids[row]) for row in rows]
        rows = np.fromiter(rows, np.int64)
        users = self.catalog.user_ids[self.users_of(rows)]
        items = self.item_ids(self.catalog.interactions.items[rows])
        return [f"{user}, {item}" for user, item in zip(users, items, strict=True)]

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
        rows = distinct(rows)
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


def hash_texts(texts: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each text (n,), none of them null."""
    encoded = texts.dictionary_encode()
    return hash_ids(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]


def blocks(texts: pa.Array, size: int) -> Iterator[tuple[int, pa.Array]]:
    """(place of the first, texts), about `size` bytes of them at a time."""
    read = np.cumsum(pc.binary_length(texts).to_numpy())
    for first, end in pairwise([*first_of_runs(read // size).tolist(), len(texts)]):
        yield first, texts.slice(first, end - first)


def join_texts(title: pa.Array, text: pa.Array) -> pa.Array:
    """title + ". " + text of each item; one of them where the other is null, "" without both."""
    joined = pc.binary_join_element_wise(title, text, pa.scalar(". ", pa.large_string()))
    return pc.fill_null(pc.coalesce(joined, title, text), pa.scalar("", pa.large_string()))


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vitrine-doctor-")


def current_time() -> float:
    return time.time()
