"""Reads some columns of files of JSON objects whose other keys would make too many columns."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import json as arrow_json

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import EXAMPLES, Notes
from catalog.reading import BatchReader
from catalog.reading.crashes import crashes_pyarrow, is_deep
from catalog.reading.recognize import FileFormat, raw_text, recognize
from catalog.reading.streams import line_blocks, refusing
from catalog.reading.types import as_json, empty_batch, is_text


def object_reader(
    path: Path, schema: pa.Schema, config: CatalogConfig, notes: Notes
) -> BatchReader:
    """Reads the columns of `schema` of a file with one JSON object a line; other keys are left out.

    A column of text takes any value: numbers as they are, nested ones as JSON. Lines that hold no
    object are dropped and noted. Raises VitrineError for a file that is no JSON.
    """
    opened: list[FileFormat] = []

    def read() -> Iterator[pa.RecordBatch]:
        with refusing(path):
            if not opened:
                opened.append(_recognized(path, config, notes))
            bad: list[str] = []
            count = 0
            for block in line_blocks(path, raw_text(path, opened[0], notes)):
                table, lost = _parse(block, schema)
                count += len(lost)
                bad += lost[: EXAMPLES - len(bad)]
                yield from table.to_batches()
            yield empty_batch(schema)  # for files without rows
        if count:
            notes.add(
                path.name,
                f"{count} lines hold no complete object and are left out",
                "dropped",
                count=count,
                examples=bad,
                remedy="mend or remove them",
            )

    return read


def _recognized(path: Path, config: CatalogConfig, notes: Notes) -> FileFormat:
    found = recognize(path, config, notes)
    if found.kind != "json":
        raise VitrineError(f"{path} holds no JSON objects, one a line, but {found.kind} data.")
    return found


def _parse(block: bytes, schema: pa.Schema) -> tuple[pa.Table, list[str]]:
    """The objects of a block, and the lines that hold none."""
    if not block.strip():
        return schema.empty_table(), []
    # half a surrogate pair is no UTF-8
    if b"\\ud" not in block.lower() and not crashes_pyarrow(block):
        try:
            parse = arrow_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            )
            options = arrow_json.ReadOptions(block_size=len(block) + 1)
            table = arrow_json.read_json(pa.BufferReader(block), options, parse)
            return table.select(schema.names), []
        except pa.ArrowInvalid:
            pass
    bad: list[str] = []
    rows = list(_rows(block, bad))
    return pa.table([_array(rows, column) for column in schema], schema=schema), bad


def _rows(block: bytes, bad: list[str]) -> Iterator[dict[str, Any]]:
    for line in block.splitlines():
        if not line.strip():
            continue
        try:
            row = None if is_deep(line) else json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            bad.append(line[:60].decode("utf-8", "replace"))


def _array(rows: list[dict[str, Any]], column: pa.Field) -> pa.Array:
    values = [row.get(column.name) for row in rows]
    if is_text(column.type):
        return pa.array([_whole(as_json(value)) for value in values], column.type)
    try:
        return pa.array(values, column.type)
    except (pa.ArrowException, TypeError, OverflowError):  # a value of another type is empty
        return pa.array([_fitting(value, column.type) for value in values], column.type)


def _whole(text: str | None) -> str | None:
    """The text with U+FFFD for halves of surrogate pairs."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) and is_text(kind.value_type) and isinstance(value, str):
        return [_whole(value)]
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, UnicodeError, OverflowError):
        return None
