"""Decides what double quotes mean in a delimited file, and splits rows where that differs by row."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Quoting = Literal["none", "doubled", "escaped", "mixed"]
"""none: quotes are letters; doubled: they enclose values, and "" is one; escaped: and \\" is one;
mixed: they enclose some values and are letters in others, decided row by row."""
QUOTE = ord('"')
MAX_SPAN = 1000
"""Lines of one value in a file whose quotes are mixed."""
ENCLOSING = 0.5
"""Share of quotes at the edges of values from which on they enclose values."""
ESCAPED = re.compile(rb"\\.", re.DOTALL)
Row = list[str]
Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass
class _Parity:
    """Follows one way of quoting through a file; `violations` counts the quotes that contradict it."""

    inside: int = 0
    violations: int = 0

    def add(self, block: Bytes, quotes: Places, edge: NDArray[np.bool_]) -> None:
        before, after = _neighbours(block, quotes)
        closing = (np.arange(len(quotes)) + self.inside) % 2 == 1
        fitting = np.where(
            closing, edge[after] | (after == QUOTE), edge[before] | (before == QUOTE)
        )
        self.violations += int(np.count_nonzero(~fitting))
        self.inside = (self.inside + len(quotes)) % 2

    @property
    def holds(self) -> bool:
        return not (self.violations or self.inside)


@dataclass
class QuoteSurvey:
    """Decides how quotes are used by all lines of a file, given in blocks of whole lines."""

    delimiter: int
    """The byte between values."""
    columns: int
    """Values in most rows."""
    doubled: _Parity = field(default_factory=_Parity)
    escaped: _Parity = field(default_factory=_Parity)
    quotes: int = 0
    openers: int = 0
    closers: int = 0
    within_lines: int = 0
    """Pairs of quotes on one line."""
    proper_spans: int = 0
    """Lines of quoted values of several lines that are no rows by themselves."""
    row_like_spans: int = 0
    """Lines of such values that have as many delimiters as a row."""
    misfits: int = 0
    """Lines that have not as many values as a row, if quotes are letters."""

    def add(self, block: bytes) -> None:
        array = np.frombuffer(block, np.uint8)
        starts, stops = _lines(array)
        values = self._values(array, starts, stops)
        self.misfits += int(np.count_nonzero((values != self.columns) & (values != 0)))
        quotes = np.flatnonzero(array == QUOTE)
        if not len(quotes) and not self.doubled.inside:
            return
        edge = np.zeros(256, bool)
        edge[[self.delimiter, 10, 13]] = True
        before, after = _neighbours(array, quotes)
        self.quotes += len(quotes)
        self.openers += int(np.count_nonzero(edge[before]))
        self.closers += int(np.count_nonzero(edge[after]))
        touched = (np.searchsorted(quotes, starts) + self.doubled.inside) % 2 == 1
        touched |= (np.searchsorted(quotes, stops) + self.doubled.inside) % 2 == 1
        like_rows = int(np.count_nonzero(values[touched] == self.columns))
        self.row_like_spans += like_rows
        self.proper_spans += int(np.count_nonzero(touched)) - like_rows
        lines = np.searchsorted(starts, quotes, "right")[self.doubled.inside :]
        self.within_lines += int(np.count_nonzero(np.diff(lines)[::2] == 0))
        masked = ESCAPED.sub(b"xx", block) if b"\\" in block else block
        other = np.frombuffer(masked, np.uint8)
        self.escaped.add(other, np.flatnonzero(other == QUOTE), edge)
        self.doubled.add(array, quotes, edge)

    def _values(self, array: Bytes, starts: Places, stops: Places) -> Places:
        """Values on each line, were quotes letters; 0 for a blank line."""
        delimiters = np.flatnonzero(array == self.delimiter)
        values = np.searchsorted(delimiters, stops) - np.searchsorted(delimiters, starts) + 1
        lengths = stops - starts - (array[stops - 1] == 13)
        return np.where(lengths <= 0, 0, values)

    def decide(self, forced: bool = False) -> Quoting:
        """`forced`: quotes do enclose values."""
        if not self.quotes:
            return "none"
        stray = (
            not forced
            and self.columns >= 3
            and self.row_like_spans
            and not (self.proper_spans or self.within_lines)
        )
        if not stray and self.doubled.holds:
            return "doubled"
        if not stray and self.escaped.holds:
            return "escaped"
        enclosing = 2 * min(self.openers, self.closers) >= ENCLOSING * self.quotes
        return "mixed" if forced or self.misfits or enclosing else "none"


def _lines(array: Bytes) -> tuple[Places, Places]:
    """Where each line of a block starts, and where its end stands."""
    ends = np.flatnonzero(array == 10)
    ends = ends if len(ends) else np.flatnonzero(array == 13)
    starts = np.concatenate([[0], ends + 1])
    if starts[-1] == len(array):
        return starts[:-1], ends
    return starts, np.append(ends, len(array))


def _neighbours(array: Bytes, quotes: Places) -> tuple[Bytes, Bytes]:
    """The bytes before and after each quote; line ends around the block."""
    around = np.concatenate([[10], array, [10]]).astype(np.uint8)
    return around[quotes], around[quotes + 2]


def record_blocks(blocks: Iterable[bytes], quoting: Quoting) -> Iterator[bytes]:
    """Blocks of whole lines → blocks of whole rows, whose quoted values may hold line ends."""
    rest = b""
    for block in blocks:
        block = rest + block
        end = last_end(block, quoting) if quoting in ("doubled", "escaped") else len(block)
        rest = block[end:]
        if end:
            yield block[:end]
    if rest:
        yield rest


def last_end(block: bytes, quoting: Quoting) -> int:
    """Place behind the last line end outside quotes."""
    if b'"' not in block:
        return len(block)
    bare = block
    if quoting == "escaped" and b"\\" in block:
        bare = ESCAPED.sub(b"xx", block)
    end = len(block)
    while bare.count(b'"', 0, end) % 2:
        quote = bare.rfind(b'"', 0, end)
        end = 1 + max(bare.rfind(b"\n", 0, quote), bare.rfind(b"\r", 0, quote))
    return end


def split_rows(text: str, delimiter: str, quoting: Quoting) -> Iterator[tuple[int, Row]]:
    """Rows of text that ends with a row, as (number of the row's last line, values); blank lines are skipped.

    Raises csv.Error where quotes contradict `quoting`.
    """
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(text, newline="")
    if quoting == "none":
        for number, line in enumerate(lines, 1):
            bare = line.rstrip("\r\n")
            if bare:
                yield number, bare.split(delimiter)
        return
    escape = "\\" if quoting == "escaped" else None
    reader = csv.reader(lines, delimiter=delimiter, escapechar=escape)
    for row in reader:
        if row:
            yield reader.line_num, row


class MixedRows:
    """Splits rows of a file whose quotes enclose some values and are letters in others.

    A line is a row with its quotes enclosing values, if each is closed. It is a row together with
    lines that follow, up to MAX_SPAN, if they close a quote, make a row of the right length, and
    are not rows by themselves. Else its quotes are letters.
    """

    def __init__(self, delimiter: str, columns: int) -> None:
        self.delimiter = delimiter
        self.columns = columns
        self.rest: list[str] = []
        self.line = 0

    def split(self, text: str, final: bool) -> Iterator[tuple[int, Row]]:
        """(Number of the last line, values) of each row; an unfinished row waits for more text."""
        lines = self.rest + list(io.StringIO(text, newline=""))
        at = 0
        while at < len(lines):
            taken, row = self._row(lines, at)
            if row is None and not final:
                break
            if row is None:
                row = lines[at].rstrip("\r\n").split(self.delimiter)
            at += taken
            self.line += taken
            if row != [""]:
                yield self.line, row
        self.rest = lines[at:]

    def _row(self, lines: list[str], at: int) -> tuple[int, Row | None]:
        """Number of lines, and the row, or None if it may end behind the last line."""
        bare = lines[at].rstrip("\r\n")
        plain = bare.split(self.delimiter)
        if '"' not in bare:
            return 1, plain
        enclosed = self._enclosed(bare)
        if enclosed is not None:
            fits = len(enclosed) == self.columns or len(plain) != self.columns
            return 1, enclosed if fits else plain
        joined, like_rows = lines[at], len(plain) == self.columns
        for more in range(at + 1, min(len(lines), at + MAX_SPAN)):
            joined += lines[more]
            like_rows &= lines[more].count(self.delimiter) == self.columns - 1
            row = self._enclosed(joined.rstrip("\r\n")) if '"' in lines[more] else None
            if row is not None:
                spans = len(row) == self.columns and not like_rows
                return (more - at + 1, row) if spans else (1, plain)
        return 1, plain if len(lines) - at >= MAX_SPAN else None

    def _enclosed(self, line: str) -> Row | None:
        """The values of a line, some within quotes; None where a quote is not closed."""
        cut, row, at = self.delimiter, [], 0
        while True:
            start = at
            while line[start : start + 1] == " " != cut:
                start += 1
            if line[start : start + 1] == '"':
                end = self._closing(line, start + 1)
                if end < 0:
                    return None
                row.append(line[start + 1 : end].replace('""', '"'))
                at = end + 1
            else:
                start, end = at, line.find(cut, at)
                at = len(line) if end < 0 else end
                row.append(line[start:at])
            if at >= len(line):
                return row
            at += len(cut)

    def _closing(self, line: str, at: int) -> int:
        """Place of the quote that closes a value, the last before a delimiter; -1 if there is none."""
        while (end := line.find('"', at)) >= 0:
            behind = line[end + 1 : end + 2]
            if behind in ("", self.delimiter):
                return end
            at = end + (2 if behind == '"' else 1)
        return -1
