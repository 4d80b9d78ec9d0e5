"""Shapes tables of sources: distinct ids, lists, joins by id, paths of images, columns left out."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import VitrineError, did_you_mean
from catalog.images import SUFFIXES
from catalog.notes import Notes
from catalog.reading.types import is_text

HIDDEN = "\x1f"
"""Stands for an escaped separator while a text is split."""


def need_columns(table: pa.Table, names: Iterable[str], path: Path, source: str) -> None:
    """Raises VitrineError for the first of these columns that the table of a file lacks."""
    for name in names:
        if name not in table.column_names:
            raise VitrineError(
                f"{path} has no column {name}, which the source {source} reads."
                f"{did_you_mean(name, table.column_names)}"
            )


def with_column(table: pa.Table, name: str, column: pa.ChunkedArray | pa.Array) -> pa.Table:
    """The table with a column added, or replaced in its place."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def with_empty(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table with empty columns of text for those of `names` that it lacks."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def text_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of ids as text; "" becomes null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def distinct(ids: pa.ChunkedArray, name: str = "item_id") -> pa.Table:
    """A table of the distinct ids, in order of appearance, without null."""
    return pa.table({name: pc.drop_null(pc.unique(text_of(ids)))})


def first_rows(table: pa.Table, column: str, where: str, notes: Notes) -> pa.Table:
    """The first row of each id; the number of the others is noted. Rows without id are kept."""
    ids = text_of(table[column])
    if pc.count_distinct(ids).as_py() + ids.null_count == len(ids):
        return table
    rows = pa.array(np.arange(len(ids)))
    firsts = pa.table({"id": ids, "row": rows}).group_by("id", use_threads=False)
    kept = pc.or_(
        pc.is_null(ids), pc.is_in(rows, value_set=firsts.aggregate([("row", "min")])["row_min"])
    )
    note_repeated(ids.filter(pc.invert(kept)), where, notes)
    return table.filter(kept)


def note_repeated(ids: pa.ChunkedArray, where: str, notes: Notes) -> None:
    """Notes rows that repeat an id, by their ids."""
    if len(ids):
        notes.add(
            where,
            f"{len(ids)} rows name an item that an earlier row describes, and are left out",
            "dropped",
            count=len(ids),
            examples=ids[:3].to_pylist(),
        )


def rows_without(
    table: pa.Table, kept: pa.ChunkedArray | pa.Array, where: str, what: str, notes: Notes
) -> pa.Table:
    """The rows where `kept` is true; the number of the others is noted as "<n> rows <what>"."""
    kept = pc.fill_null(kept, False)
    count = len(table) - (pc.sum(kept).as_py() or 0)
    if count:
        notes.add(where, f"{count} rows {what}", "dropped", count=count)
    return table.filter(kept) if count else table


def without_leaks(table: pa.Table, names: Sequence[str], where: str, notes: Notes) -> pa.Table:
    """The table without columns that count what happened until the data was collected."""
    found = [name for name in names if name in table.column_names]
    if found:
        notes.add(
            where,
            f"{', '.join(found)}: counted when the data was collected, after the interactions to be "
            "predicted; left out",
            "dropped",
            examples=found,
        )
    return table.drop_columns(found)


def split_text(column: pa.ChunkedArray, separator: str, escaped: str = "") -> pa.ChunkedArray:
    """Texts → lists of their trimmed parts that are not blank; `escaped` is no separator."""
    text = column.cast(pa.string())
    if escaped:
        text = pc.replace_substring(text, escaped, HIDDEN)
    pieces = [_split(chunk, separator, escaped) for chunk in text.chunks]
    return pa.chunked_array(pieces, pa.list_(pa.string()))


def _split(text: pa.Array, separator: str, escaped: str) -> pa.Array:
    lists = pc.split_pattern(text, separator)
    flat = pc.utf8_trim_whitespace(lists.flatten())
    if escaped:
        flat = pc.replace_substring(flat, HIDDEN, escaped[-1])
    full = pc.not_equal(flat, "")
    parents = pc.list_parent_indices(lists).filter(full)
    return lists_of(parents, flat.filter(full), len(lists))


def lists_of(parents: pa.Array, values: pa.Array, length: int) -> pa.ListArray:
    """Lists of values by ascending row numbers: int (n,), (n,) → (length,) lists, null where empty."""
    counts = np.bincount(parents.to_numpy(zero_copy_only=False), minlength=length)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    empty = pa.array(np.append(counts == 0, False))
    starts = pc.if_else(empty, pa.scalar(None, pa.int32()), pa.array(offsets))
    return pa.ListArray.from_arrays(starts, values)


def grouped(ids: pa.ChunkedArray, values: pa.ChunkedArray, of: pa.ChunkedArray) -> pa.ListArray:
    """For each id of `of`, the values that belong to it, in order, without null."""
    parents = pc.index_in(text_of(ids), value_set=text_of(of).combine_chunks())
    known = pc.and_(pc.is_valid(parents), pc.is_valid(values))
    parents = parents.filter(known).combine_chunks()
    order = pa.array(np.argsort(parents.to_numpy(zero_copy_only=False), kind="stable"))
    found = values.filter(known).combine_chunks()
    return lists_of(parents.take(order), found.take(order), len(of))


def join(table: pa.Table, key: str, other: pa.Table, other_key: str) -> pa.Table:
    """The table with the columns of `other` that it lacks, by id; null where `other` has no such id."""
    rows = pc.index_in(text_of(table[key]), value_set=text_of(other[other_key]).combine_chunks())
    for name in other.column_names:
        if name not in table.column_names and name != other_key:
            table = table.append_column(name, other[name].take(rows))
    return table


def lookup(ids: pa.ChunkedArray, keys: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The value of each id's first equal key; null where there is none."""
    rows = pc.index_in(text_of(ids), value_set=text_of(keys).combine_chunks())
    return values.take(rows)


def image_paths(ids: pa.ChunkedArray, folder: Path, inside: Sequence[str]) -> pa.ChunkedArray:
    """Paths, relative to `folder`, of the image files named by ids; null where there is none.

    `inside`: folders below it, the first of which that exists is read, with the folders in it.
    """
    names: list[str] = []
    paths: list[str] = []
    place = next((one for one in inside if (folder / one).is_dir()), None)
    if place is not None:
        below = [place, *_folders(folder, place)]
        for one in below:
            for name in sorted(os.listdir(folder / one)):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    names.append(stem)
                    paths.append(f"{one}/{name}")
    rows = pc.index_in(text_of(ids), value_set=pa.array(names, pa.string()))
    return pa.chunked_array([pa.array(paths, pa.string())]).take(rows)


def _folders(folder: Path, place: str) -> list[str]:
    with os.scandir(folder / place) as entries:
        return sorted(f"{place}/{entry.name}" for entry in entries if entry.is_dir())


def renamed(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """The table with some columns under other names."""
    return table.rename_columns([names.get(name, name) for name in table.column_names])


def is_blank(column: pa.ChunkedArray) -> bool:
    """Whether a column of text holds no value."""
    return column.null_count == len(column) or (
        is_text(column.type) and not pc.any(pc.not_equal(column, "")).as_py()
    )
