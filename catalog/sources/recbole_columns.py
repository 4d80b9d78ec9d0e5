"""Reads RecBole's files in batches, with the types that their headers name."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader
from catalog.roles import ITEM_ROLES
from catalog.sources.shaping import split_text

TYPES = ("token", "token_seq", "float", "float_seq")
PROSE = {name.replace("_", "") for role in ("title", "text") for name in ITEM_ROLES[role]}
"""Names of columns whose words, separated by blanks, are one text."""
COMMAS = 0.5
"""Share of a sequence's values with ", " from which on that separates its elements."""


@dataclass
class _Column:
    """A column, and what was seen of its values."""

    name: str
    kind: str
    num_values: int = 0
    num_commas: int = 0
    is_number: bool = True
    """Whether all values are numbers, of a column that is typed so."""

    def survey(self, values: pa.Array) -> None:
        if self.kind == "token_seq":
            self.num_values += len(values) - values.null_count
            self.num_commas += pc.sum(pc.match_substring(values, ", ")).as_py() or 0
        elif self.kind != "token" and self.is_number:
            try:
                self.read(values)
            except pa.ArrowInvalid:
                self.is_number = False

    @property
    def has_commas(self) -> bool:
        return self.num_commas >= COMMAS * max(1, self.num_values)

    def read(self, values: pa.Array) -> pa.Array | pa.ChunkedArray:
        """The values in their type; text where they are of another one."""
        if self.kind == "token" or not self.is_number:
            return values
        column = pa.chunked_array([values])
        if self.kind == "token_seq":
            return split_text(column, "," if self.has_commas else " ").combine_chunks()
        if self.kind == "float":
            return values.cast(pa.float64())
        return split_text(column, " ").cast(pa.list_(pa.float64())).combine_chunks()

    def add_notes(self, where: str, notes: Notes) -> None:
        place = f"{where}: {self.name}"
        if self.kind == "token_seq" and self.has_commas:
            notes.add(place, "its elements are separated by commas, not by blanks")
        if not self.is_number:
            notes.add(place, "is typed float and holds other values; it is read as text")


def typed_reader(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    """The columns of a file in the types that its header names, and without these in their names.

    The first call reads the file once more: what separates a list, and whether all numbers are some, is
    decided by the whole column. VitrineError for a header without types.
    """
    read = batch_reader(path, config, notes)
    decided: list[_Column] = []

    def batches() -> Iterator[pa.RecordBatch]:
        if not decided:
            decided.extend(_surveyed(read, path, notes))
        names = [column.name for column in decided]
        for batch in read():
            values = [one.read(given) for one, given in zip(decided, batch.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(values, names)

    return batches


def _surveyed(read: BatchReader, path: Path, notes: Notes) -> list[_Column]:
    columns: list[_Column] = []
    for batch in read():
        columns = columns or _named(batch.schema.names, path, notes)
        for column, values in zip(columns, batch.columns, strict=True):
            column.survey(values)
    for column in columns:
        column.add_notes(path.name, notes)
    return columns


def _named(names: list[str], path: Path, notes: Notes) -> list[_Column]:
    columns: list[_Column] = []
    untyped: list[str] = []
    for given in names:
        name, _, kind = given.rpartition(":")
        if kind not in TYPES or not name:
            untyped.append(given)
            name, kind = given, "token"
        if kind == "token_seq" and name.replace("_", "").lower() in PROSE:
            kind = "token"
        columns.append(_Column(name, kind))
    if len(untyped) == len(names):
        raise VitrineError(
            f"{path} names no types: RecBole's headers read user_id:token, tab-separated, and this one "
            f"begins with {untyped[0][:60]!r}."
        )
    if untyped:
        notes.add(path.name, "columns without a type are read as token", examples=untyped)
    return columns
