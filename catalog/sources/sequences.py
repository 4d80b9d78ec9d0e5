"""Reads files with one user a line, and the items of the user behind it, in batches."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader
from catalog.sources.finding import defaults

LINE = "\x1d"
"""A delimiter that no line holds, so that each is one value."""


def line_reader(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    """The lines of a file, unquoted, in the column `line`."""
    rules = defaults(config, quote="none", header="no")
    return batch_reader(path, replace(rules, delimiter=LINE), notes, ["line"])


def sequence_reader(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    """user_id and item_id: one row for each item of lines such as user⇥item item item, in order.

    VitrineError where no line is one.
    """
    lines = line_reader(path, config, notes)

    def read() -> Iterator[pa.RecordBatch]:
        total = whole = 0
        for batch in lines():
            unfolded, num_whole = _unfolded(batch["line"])
            if whole == 0 and num_whole and _is_header(unfolded["item_id"][0].as_py()):
                unfolded = unfolded.slice(1)
            total, whole = total + batch.num_rows, whole + num_whole
            yield unfolded
        if total and not whole:
            raise VitrineError(
                f"{path} has no lines with a user, a tab and items separated by blanks; it is no table "
                "of sequences."
            )
        if lost := total - whole:
            what = f"{lost} lines have no items and are left out"
            notes.add(path.name, what, "dropped", count=lost)
        notes.add(path.name, "has no times; each user's interactions are in the order of its line")

    return read


def _unfolded(lines: pa.Array) -> tuple[pa.RecordBatch, int]:
    """A row for each item, and the number of lines with a user and items."""
    halves = pc.split_pattern(lines, "\t", max_splits=1)
    halves = halves.filter(pc.fill_null(pc.equal(pc.list_value_length(halves), 2), False))
    items = pc.split_pattern_regex(pc.utf8_trim_whitespace(pc.list_element(halves, 1)), r"\s+")
    users = pc.list_element(halves, 0).take(pc.list_parent_indices(items))
    return pa.RecordBatch.from_pydict({"user_id": users, "item_id": items.flatten()}), len(halves)


def _is_header(item: str) -> bool:
    return re.match(r"[a-z_]*item", item) is not None
