"""Reads delimited files block by block: every column as text, every row kept."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

from catalog.notes import EXAMPLES, Notes
from catalog.reading.quoting import MixedRows, QuoteSurvey, Row, last_end, record_blocks, split_rows
from catalog.reading.recognize import FileFormat, raw_lines
from catalog.reading.streams import count_lines, line_blocks, refusing

PART = 1 << 20
"""Bytes that one thread of pyarrow parses at once."""
LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class _Misfits:
    """Rows with too few or too many values."""

    short: int = 0
    long: int = 0
    short_lines: list[str] = field(default_factory=list)
    long_lines: list[str] = field(default_factory=list)

    def fit(self, row: Row, columns: int, line: int) -> Row:
        """The row with `columns` values: filled up with empty ones, or without the surplus."""
        if len(row) < columns:
            self.short += 1
            if len(self.short_lines) < EXAMPLES:
                self.short_lines.append(f"line {line}")
            return row + [""] * (columns - len(row))
        if any(row[columns:]):
            self.long += 1
            if len(self.long_lines) < EXAMPLES:
                surplus = next(value for value in row[columns:] if value)
                self.long_lines.append(f"line {line}: {surplus}")
        return row[:columns]

    def note(self, where: str, columns: int, notes: Notes) -> None:
        remedy = "mend these rows"
        if self.short:
            notes.add(
                where,
                f"{self.short} rows have fewer than {columns} values; the missing ones are empty",
                "empty",
                count=self.short,
                examples=self.short_lines,
                remedy=remedy,
            )
        if self.long:
            notes.add(
                where,
                f"{self.long} rows have more than {columns} values; the surplus ones are left out",
                "dropped",
                count=self.long,
                examples=self.long_lines,
                remedy=remedy,
            )


class DelimitedFile:
    """A delimited file: its schema, and its rows in batches of about a block each."""

    def __init__(self, path: Path, found: FileFormat, notes: Notes) -> None:
        self.path = path
        self.found = found
        self.notes = notes
        self.schema = pa.schema([(name, pa.string()) for name in found.names])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in order; empty values are null. Misfit rows are noted after the last one."""
        found = self.found
        blocks = _without_lines(raw_lines(self.path, found, self.notes), found.skipped)
        misfits = _Misfits()
        split = self._mixed if found.quoted == "mixed" else self._uniform
        with refusing(self.path):
            for table in split(blocks, misfits):
                yield from table.rename_columns(list(found.names)).to_batches()
        misfits.note(self.path.name, len(found.names), self.notes)

    def _uniform(self, blocks: Iterable[bytes], misfits: _Misfits) -> Iterator[pa.Table]:
        line = self.found.skipped
        for block in record_blocks(blocks, self.found.quoted):
            try:
                yield self._parse(block)
            except pa.ArrowInvalid:  # a row with too few or too many values, or a very long one
                text = block.decode("utf-8", "replace")
                rows = split_rows(text, self.found.separator, self.found.quoted)
                yield self._table(rows, misfits, line)
            line += count_lines(block)

    def _mixed(self, blocks: Iterable[bytes], misfits: _Misfits) -> Iterator[pa.Table]:
        """By pyarrow where a piece's quotes are consistent, and row by row where they are not."""
        rows = MixedRows(self.found.separator, len(self.found.names))
        rows.line = self.found.skipped
        carry = b""
        pieces = (block[at : at + PART] for block in blocks for at in range(0, len(block), PART))
        for piece in line_blocks(self.path, pieces):
            piece = carry + piece
            end = 0 if rows.rest else last_end(piece, "doubled")
            parsed = self._parse_proper(piece[:end])
            if parsed is None:
                end = len(piece)
                text = piece.decode("utf-8", "replace")
                parsed = self._table(rows.split(text, final=False), misfits, 0)
            else:
                rows.line += count_lines(piece[:end])
            carry = piece[end:]
            yield parsed
        yield self._table(rows.split(carry.decode("utf-8", "replace"), final=True), misfits, 0)

    def _parse_proper(self, piece: bytes) -> pa.Table | None:
        """The rows of a piece, if all of its quotes enclose values and all rows have their length."""
        if not piece:
            return None
        survey = QuoteSurvey(ord(self.found.separator), len(self.found.names))
        survey.add(piece)
        if survey.quotes and survey.decide() != "doubled":
            return None
        try:
            return self._parse(piece)
        except pa.ArrowInvalid:
            return None

    def _parse(self, block: bytes) -> pa.Table:
        """The rows of a block by pyarrow, which refuses those with too few or too many values."""
        found = self.found
        names = [str(number) for number in range(len(found.names) + found.extra)]
        quoted = found.quoted != "none"
        parsed = arrow_csv.read_csv(
            pa.BufferReader(block),
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=PART),
            parse_options=arrow_csv.ParseOptions(
                delimiter=found.separator,
                quote_char='"' if quoted else False,
                escape_char="\\" if found.quoted == "escaped" else False,
                newlines_in_values=quoted,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
        if found.extra and parsed[names[-1]].null_count < len(parsed):
            raise pa.ArrowInvalid("a value stands behind the last column")
        return parsed.select(names[: len(found.names)])

    def _table(self, rows: Iterable[tuple[int, Row]], misfits: _Misfits, before: int) -> pa.Table:
        """A table of rows with numbers of lines, after `before` lines."""
        columns = len(self.found.names)
        fitted: list[Row] = []
        try:
            for line, row in rows:
                if columns > 1 and len(row) == 1 and not row[0].strip():
                    continue  # a blank line
                fitted.append(
                    row if len(row) == columns else misfits.fit(row, columns, before + line)
                )
        except csv.Error as error:
            raise pa.ArrowInvalid(str(error)) from error
        values = zip(*fitted, strict=True) if fitted else [()] * columns
        arrays = [pa.array([cell or None for cell in column], pa.string()) for column in values]
        return pa.table(arrays, names=[str(number) for number in range(columns)])


def _without_lines(blocks: Iterable[bytes], skipped: int) -> Iterator[bytes]:
    """The blocks without the first lines."""
    for block in blocks:
        at = 0
        while skipped:
            found = LINE_END.search(block, at)
            at = found.end() if found else len(block)
            skipped -= bool(found)
            if not found:
                break
        if at < len(block):
            yield block[at:]
