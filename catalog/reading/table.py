"""Reads a table of one file, or of many parts, whole or in batches."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading.delimited import DelimitedFile
from catalog.reading.json_lines import JsonFile
from catalog.reading.recognize import recognize
from catalog.reading.streams import BLOCK, refusing
from catalog.reading.types import conform, empty_batch, merge_schemas

Paths = Path | Sequence[Path]
BatchReader = Callable[[], Iterator[pa.RecordBatch]]
"""Reads a table in batches of one schema, again at each call."""


class _File(Protocol):
    schema: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]: ...


def read_table(
    path: Paths, settings: CatalogConfig, notes: Notes, names: list[str] | None = None
) -> pa.Table:
    """The table of a file, or of many in this order; columns of delimited files are text.

    `names`: of the columns of delimited files without a header. Adds to `notes` what was decided,
    dropped or left empty. Raises VitrineError for files that are no tables.
    """
    files, schema = _open_all(path, settings, notes, names)
    return pa.Table.from_batches(_batches(files, schema), schema)


def read_batches(
    path: Paths, settings: CatalogConfig, notes: Notes, names: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The same table in batches of one schema, in memory that does not grow with the files."""
    files, schema = _open_all(path, settings, notes, names)
    yield from _batches(files, schema)


def batch_reader(
    path: Paths, settings: CatalogConfig, notes: Notes, names: list[str] | None = None
) -> BatchReader:
    """`read_batches` to be called again and again: the files are recognized at the first call alone.

    Gives at least one batch, without rows where the files have none.
    """
    opened: list[tuple[list[_File], pa.Schema]] = []

    def read() -> Iterator[pa.RecordBatch]:
        if not opened:
            opened.append(_open_all(path, settings, notes, names))
        files, schema = opened[0]
        batch = None
        for batch in _batches(files, schema):
            yield batch
        if batch is None:
            yield empty_batch(schema)

    return read


def unite_batches(
    readers: Sequence[BatchReader], names: Sequence[str], notes: Notes
) -> BatchReader:
    """Batches of tables one after another, with the columns of all; `names` stand for them in `notes`."""
    united: list[pa.Schema] = []

    def read() -> Iterator[pa.RecordBatch]:
        if not united:
            schemas = [next(one()).schema for one in readers]
            united.append(_united(list(names), schemas, notes))
        for one in readers:
            for batch in one():
                yield conform(batch, united[0])

    return read


def unite_tables(tables: Sequence[pa.Table], names: Sequence[str], notes: Notes) -> pa.Table:
    """One table of all rows, with the columns of all; `names` stand for the tables in `notes`."""
    schema = _united(list(names), [table.schema for table in tables], notes)
    batches = (conform(batch, schema) for table in tables for batch in table.to_batches())
    return pa.Table.from_batches(batches, schema)


def _batches(files: list[_File], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for file in files:
        for batch in file.batches():
            yield conform(batch, schema)


def _open_all(
    path: Paths, settings: CatalogConfig, notes: Notes, names: list[str] | None
) -> tuple[list[_File], pa.Schema]:
    paths = [path] if isinstance(path, Path) else list(path)
    files: list[_File] = []
    for one in paths:
        own = Notes() if files else notes
        file = _open(one, settings, own, names)
        first = files[0] if files else None
        if _continues(file, first):
            own = Notes()
            file = _open(one, settings, own, list(first.schema.names) if first else None)
        if files:
            said = {note.what for note in notes.listed}
            notes.listed += [note for note in own.listed if note.what not in said]
            if isinstance(file, DelimitedFile | JsonFile):
                file.notes = notes
        files.append(file)
    if len(files) == 1:
        return files, files[0].schema
    return files, _united([one.name for one in paths], [file.schema for file in files], notes)


def _continues(file: _File, first: _File | None) -> bool:
    """Whether a file has no header because it goes on where the first was cut off."""
    return (
        isinstance(file, DelimitedFile)
        and isinstance(first, DelimitedFile)
        and first.found.header
        and not file.found.header
        and len(file.schema) == len(first.schema)
    )


def _united(names: list[str], schemas: list[pa.Schema], notes: Notes) -> pa.Schema:
    """The columns of all files; which ones some files lack, or hold as another type, is noted."""
    united, conflicts = merge_schemas(schemas)
    where = f"{names[0]} … {names[-1]}"
    lacking = {
        column: [
            name for name, schema in zip(names, schemas, strict=True) if column not in schema.names
        ]
        for column in united.names
    }
    for column, files in lacking.items():
        if files:
            notes.add(
                where,
                f"{len(files)} of {len(names)} files have no column {column}; it is empty there",
                "empty",
                examples=files,
            )
    for column, kinds in conflicts.items():
        notes.add(f"{where}: {column}", f"holds {' and '.join(kinds)}; all are read as text")
    return united


def _open(path: Path, settings: CatalogConfig, notes: Notes, names: list[str] | None) -> _File:
    with refusing(path):
        found = recognize(path, settings, notes, names)
        match found.kind:
            case "parquet":
                return _ParquetFile(path)
            case "delimited":
                return DelimitedFile(path, found, notes)
            case _:
                return JsonFile(path, found, notes)


class _ParquetFile:
    """A parquet file, in batches of about a block, without reading ahead, which would hold the whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with refusing(path):
            self.schema = parquet.read_schema(path)

    def batches(self) -> Iterator[pa.RecordBatch]:
        with refusing(self.path), parquet.ParquetFile(self.path, pre_buffer=False) as file:
            groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            rows = max(1, file.metadata.num_rows * BLOCK // max(1, size))
            for batch in file.iter_batches(batch_size=min(rows, 1 << 20)):
                for column in batch.columns:
                    _check_codes(column)
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


def _check_codes(column: pa.Array) -> None:
    """ArrowInvalid where the codes of a damaged file lie outside of their dictionary."""
    if pa.types.is_dictionary(column.type) and len(column) > column.null_count:
        ends = pc.min_max(column.indices)
        if ends["min"].as_py() < 0 or ends["max"].as_py() >= len(column.dictionary):
            raise pa.ArrowInvalid("codes outside of their dictionary")
