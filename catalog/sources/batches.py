"""Shapes tables of sources batch by batch: what must be known of all rows is ids, or hashes of them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.hashing import hash_ids
from catalog.notes import CountedNotes, Notes
from catalog.reading import BatchReader
from catalog.reading.types import empty_batch
from catalog.sources.shaping import distinct, note_repeated, text_of

Shape = Callable[[pa.Table, Notes], pa.Table]
SORTED = 16
"""Arrays of hashes that are searched one by one before they become one."""


def whole_table(read: BatchReader) -> Callable[[], pa.Table]:
    """Reads all batches as one table."""
    return lambda: pa.Table.from_batches(read())


def shape_batches(read: BatchReader, shape: Shape, notes: Notes) -> BatchReader:
    """Reads batches, each shaped by itself; what `shape` notes is added up when all are read."""

    def batches() -> Iterator[pa.RecordBatch]:
        counted = CountedNotes()
        for batch in read():
            table = shape(pa.Table.from_batches([batch]), counted).combine_chunks()
            yield from table.to_batches() or [empty_batch(table.schema)]
        counted.add_to(notes)

    return batches


def first_row_batches(read: BatchReader, column: str, where: str, notes: Notes) -> BatchReader:
    """The first row of each id; the number of the others is noted. Rows without id are kept.

    Memory holds 8 bytes for each id: two ids of one hash would count as one, which happens in one
    of forty million catalogs with a million items.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        seen = _Seen()
        counted = CountedNotes()
        for batch in read():
            ids = text_of(pa.chunked_array([batch.column(batch.schema.names.index(column))]))
            given = np.flatnonzero(pc.is_valid(ids).to_numpy())
            kept = np.ones(len(ids), np.bool_)
            kept[given] = seen.add(hash_ids(ids.drop_null().to_pylist()))
            mask = pa.array(kept)
            note_repeated(ids.filter(pc.invert(mask)), where, counted)
            yield batch.filter(mask)
        counted.add_to(notes)

    return batches


def distinct_batches(read: BatchReader, column: str) -> pa.Table:
    """A table of the distinct ids of a column, in order of appearance, without null."""
    known = pa.chunked_array([pa.array([], pa.string())])
    for batch in read():
        ids = distinct(pa.chunked_array([batch.column(batch.schema.names.index(column))]))
        new = ids["item_id"].filter(pc.invert(pc.is_in(ids["item_id"], value_set=known)))
        known = pa.chunked_array([*known.chunks, *new.chunks])
    return pa.table({column: known})


class _Seen:
    """Hashes that have been there, in few sorted arrays."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(n,) whether a hash is there for the first time."""
        new = np.zeros(len(hashes), np.bool_)
        values, firsts = np.unique(hashes, return_index=True)
        fresh = np.ones(len(values), np.bool_)
        for known in self.arrays:
            places = np.searchsorted(known, values)
            places[places == len(known)] = 0
            fresh &= known[places] != values
        new[firsts[fresh]] = True
        if fresh.any():
            self.arrays.append(values[fresh])
        if len(self.arrays) > SORTED:
            self.arrays = [np.sort(np.concatenate(self.arrays))]
        return new
