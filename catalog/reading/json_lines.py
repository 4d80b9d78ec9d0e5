"""Reads objects in JSON, one a line or in one array, and dictionaries as Python prints them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from catalog.errors import VitrineError
from catalog.notes import EXAMPLES, Notes
from catalog.reading.crashes import crashes_pyarrow, is_deep
from catalog.reading.recognize import FileFormat, raw_text
from catalog.reading.streams import line_blocks, refusing
from catalog.reading.types import as_json, is_list, is_text, merge_schemas, merge_types, plain_name

LONGEST_LITERAL = 1 << 20
"""Letters of the longest line that is parsed as a dictionary of Python."""
EXACT = 2**53
"""Whole numbers up to this are exact in float64."""
LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"  # an even number of backslashes: the next one begins an escape
    rb"(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair, to be kept
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
ESCAPE = re.compile(rb"\\.", re.DOTALL)
LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$")
TEXT = pa.string()
MIXED = "mixed values"
HEAD = 1 << 20
"""Bytes whose first lines show whether there is one object a line."""


@dataclass
class _Dropped:
    """Lines that hold no object."""

    lines: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, number: int, line: bytes) -> None:
        self.lines += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"line {number}: {line[:60].decode('utf-8', 'replace').strip()}")

    def note(self, where: str, notes: Notes) -> None:
        if self.lines:
            notes.add(
                where,
                f"{self.lines} lines hold no complete object and are left out",
                "dropped",
                count=self.lines,
                examples=self.examples,
                remedy="mend or remove them",
            )


class JsonFile:
    """A file of objects: its schema, found by reading all of it, and its rows in batches."""

    def __init__(self, path: Path, found: FileFormat, notes: Notes) -> None:
        self.path = path
        self.found = found
        self.notes = notes
        self.slow = False
        """Whether pyarrow cannot read some block as the schema demands."""
        self.only: pa.Table | None = None
        """The rows, where they are one block that pyarrow read as it is."""
        with refusing(path):
            self.schema, self.conflicts = self._survey()
        for name, kinds in self.conflicts.items():
            notes.add(
                f"{path.name}: {name}",
                f"holds {' and '.join(kinds)}; all are read as text, nested ones as JSON",
            )

    def _survey(self) -> tuple[pa.Schema, dict[str, list[str]]]:
        """The united schema of all blocks, and the columns of several types."""
        schemas: list[pa.Schema] = []
        conflicts: dict[str, list[str]] = {}
        large: set[str] = set()
        dropped = _Dropped()
        parsed = None
        for block in self._lines(dropped):
            parsed = _parse(block)
            if parsed is None:
                self.slow = True
                kinds = _Kinds()
                for _, row in _objects(block, 0, dropped):
                    kinds.add(row)
                schemas.append(pa.schema(list(kinds.found.items())))
                conflicts |= kinds.conflicts
                large |= kinds.large
            else:
                schemas.append(parsed.schema)
                large |= _large_integers(parsed)
        schema, others = merge_schemas(schemas)
        conflicts |= {name: kinds for name, kinds in others.items() if name not in conflicts}
        for column in schema:
            if column.name in large and pa.types.is_floating(column.type):
                conflicts.setdefault(column.name, ["whole numbers beyond 2^53", "fractions"])
        if not schema.names:
            raise VitrineError(
                f"{self.path} cannot be read: it holds no object with a key, such as "
                f'{{"item_id": "1"}}' + (f" ({dropped.examples[0]})." if dropped.examples else ".")
            )
        if len(schemas) == 1 and parsed is not None and not dropped.lines:
            self.only = parsed
        self.slow |= bool(conflicts)
        if self.slow:
            kinds = [TEXT if f.name in conflicts else _without_dates(f.type) for f in schema]
            schema = pa.schema(list(zip(schema.names, kinds, strict=True)))
        return schema, conflicts

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All objects, in order. Lines that hold none are noted after the last one."""
        if self.only is not None:
            yield from self.only.to_batches()
            return
        dropped = _Dropped()
        line = 0
        with refusing(self.path):
            for block in self._lines(dropped, self.notes):
                parsed = None if self.conflicts else _parse(block, self.schema)
                if parsed is None:
                    rows = [row for _, row in _objects(block, line, dropped)]
                    parsed = _table(rows, self.schema)
                line += block.count(b"\n")
                yield from parsed.to_batches()
        dropped.note(self.path.name, self.notes)

    def _lines(self, dropped: _Dropped, notes: Notes | None = None) -> Iterator[bytes]:
        """Blocks of lines with one JSON object each."""
        blocks = raw_text(self.path, self.found, notes)
        if self.found.kind == "python":
            return _from_python(line_blocks(self.path, blocks), dropped)
        return line_blocks(self.path, _one_a_line(blocks))


def _parse(block: bytes, schema: pa.Schema | None = None) -> pa.Table | None:
    """The objects of a block by pyarrow; None where that fails, or would round whole numbers."""
    if b"\\u" in block:
        block = LONE_SURROGATE.sub(lambda found: found[1] + (found[2] or rb"\ufffd"), block)
    if not block.strip():
        return (schema or pa.schema([])).empty_table()
    if crashes_pyarrow(block):
        return None
    options = arrow_json.ReadOptions(block_size=len(block) + 1)
    parse = arrow_json.ParseOptions(explicit_schema=schema)
    try:
        parsed = arrow_json.read_json(pa.BufferReader(block), options, parse)
    except pa.ArrowInvalid:
        return None
    if any(_is_rounded(column) for column in parsed.columns):
        return None
    return parsed if schema is None else parsed.select(schema.names)


def _is_rounded(column: pa.ChunkedArray) -> bool:
    """Whether numbers are so large that whole ones among them may have been rounded."""
    kind = column.type
    if pa.types.is_floating(kind):
        return bool(pc.any(pc.greater_equal(pc.abs(column), float(EXACT))).as_py())
    if is_list(kind):
        return _is_rounded(pc.list_flatten(column))
    if pa.types.is_struct(kind):
        return any(_is_rounded(pc.struct_field(column, place)) for place in range(kind.num_fields))
    return False


def _objects(block: bytes, line: int, dropped: _Dropped) -> Iterator[tuple[int, dict[str, Any]]]:
    """(Number of the line, object) of each line that holds one."""
    if b"\\u" in block:
        block = LONE_SURROGATE.sub(lambda found: found[1] + (found[2] or rb"\ufffd"), block)
    for number, text in enumerate(LINE.findall(block), line + 1):
        if not text.strip():
            continue
        try:
            row = None if is_deep(text) else json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield number, row
        else:
            dropped.add(number, text)


class _Kinds:
    """Types of the values of Python's objects, united."""

    def __init__(self) -> None:
        self.found: dict[str, pa.DataType] = {}
        self.conflicts: dict[str, list[str]] = {}
        self.large: set[str] = set()
        """Columns with whole numbers that float64 may not hold."""

    def add(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, int) and abs(value) > EXACT:
                self.large.add(name)
            kind = kind_of(value)
            before = self.found.get(name, pa.null())
            after = None if kind is None else merge_types(before, kind)
            if after is None:
                kinds = self.conflicts.setdefault(
                    name, [plain_name(before)] * (before != pa.null())
                )
                said = MIXED if kind is None else plain_name(kind)
                kinds += [said] * (said not in kinds)
            self.found[name] = TEXT if after is None else after


def kind_of(value: Any) -> pa.DataType | None:
    """The Arrow type of a value of JSON; None where there is none."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return TEXT
    if isinstance(value, list):
        inner: pa.DataType | None = pa.null()
        for one in value:
            kind = kind_of(one)
            inner = None if kind is None or inner is None else merge_types(inner, kind)
        return None if inner is None else pa.list_(inner)
    kinds = {name: kind_of(one) for name, one in value.items()}
    if None in kinds.values():
        return None
    return pa.struct(list(kinds.items()))


def _without_dates(kind: pa.DataType) -> pa.DataType:
    """The type with texts for times, which pyarrow recognises in texts."""
    if pa.types.is_timestamp(kind):
        return TEXT
    if is_list(kind):
        return pa.list_(_without_dates(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(inner.name, _without_dates(inner.type)) for inner in kind])
    return kind


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    arrays = []
    for column in schema:
        values = [row.get(column.name) for row in rows]
        if is_text(column.type):
            values = [as_json(value) for value in values]
        arrays.append(pa.array(values, column.type))
    return pa.table(arrays, schema=schema)


def _large_integers(table: pa.Table) -> set[str]:
    """Columns with whole numbers that float64 may not hold."""
    return {
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_integer(column.type) and pc.any(pc.greater(pc.abs(column), EXACT)).as_py()
    }


# Text → one object a line


def _from_python(blocks: Iterable[bytes], dropped: _Dropped) -> Iterator[bytes]:
    """Lines with dictionaries of Python → lines of JSON; blank ones for those that are none."""
    line = 0
    for block in blocks:
        texts = [line.rstrip(b"\r\n") for line in LINE.findall(block)]
        written = [_as_json_line(text.decode("utf-8", "replace").strip()) for text in texts]
        for number, (text, one) in enumerate(zip(texts, written, strict=True), line + 1):
            if one is None:
                dropped.add(number, text)
        line += len(texts)
        yield b"".join((one or b"") + b"\n" for one in written)


def _as_json_line(text: str) -> bytes | None:
    """JSON of a line with a dictionary; None where it holds none, or is longer than is parsed."""
    if not text:
        return b""
    for parse in (ast.literal_eval, json.loads):
        try:
            row = parse(text) if len(text) <= LONGEST_LITERAL else None
            if isinstance(row, dict):
                return json.dumps(row, default=str).encode()
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None


def _one_a_line(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Objects of one array, or of several lines each → one a line; lines of objects as they are."""
    whole = iter(blocks)
    first = next(whole, b"")
    lines = [line for line in first[:HEAD].splitlines() if line.strip()][:5]
    blocks = chain([first], whole)
    is_array = first.lstrip()[:1] == b"["
    if not is_array and (len(lines) < 2 or any(_is_object(line) for line in lines)):
        yield from blocks
        return
    state = _Nesting(base=int(is_array))
    for block in blocks:
        for at in range(0, len(block), HEAD):
            yield state.flatten(block[at : at + HEAD])
    yield state.carry


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@dataclass
class _Nesting:
    """Where in JSON the next byte stands."""

    base: int
    """Depth of the brackets around the objects."""
    depth: int = 0
    in_text: int = 0
    carry: bytes = b""
    """Backslashes at the end of the last block, whose next letter is in the next."""

    def flatten(self, block: bytes) -> bytes:
        """The block with a line end behind each object, and spaces for those within objects."""
        block = self.carry + block
        stripped = block.rstrip(b"\\")
        self.carry = block[len(stripped) :]
        block = stripped
        bare = np.frombuffer(ESCAPE.sub(b"xx", block) if b"\\" in block else block, np.uint8)
        texts = (np.cumsum(bare == ord('"'), dtype=np.uint8) + self.in_text) % 2
        outside = texts == 0
        opens = ((bare == ord("{")) | (bare == ord("["))) & outside
        closes = ((bare == ord("}")) | (bare == ord("]"))) & outside
        steps = opens.astype(np.int8) - closes.astype(np.int8)
        depth = np.cumsum(steps, dtype=np.int32) + self.depth
        written = np.array(np.frombuffer(block, np.uint8))
        ends = (written == 10) | (written == 13)
        written[ends & ((depth > self.base) | ~outside)] = ord(" ")
        if self.base:
            written[(opens & (depth == 1)) | (closes & (depth == 0))] = ord(" ")
            written[(bare == ord(",")) & outside & (depth == 1)] = 10
        if len(bare):
            self.depth, self.in_text = int(depth[-1]), int(texts[-1])
        return written.tobytes()
