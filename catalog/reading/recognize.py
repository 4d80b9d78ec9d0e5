"""Recognises a file: compression, encoding, kind, delimiter, quoting and header, by its content."""

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading.encoding import (
    HEAD,
    Encoding,
    decide_encoding,
    is_binary,
    is_utf8,
    named_encoding,
    utf8_blocks,
    wide_encoding,
)
from catalog.reading.header import column_names, is_header, is_row_numbers
from catalog.reading.quoting import MixedRows, QuoteSurvey, Quoting, Row, split_rows
from catalog.reading.streams import (
    SUFFIXES,
    Compression,
    byte_blocks,
    line_blocks,
    recognize_compression,
    refusing,
)

Kind = Literal["parquet", "json", "python", "delimited"]
"""json: objects in lines or in one array; python: dictionaries in lines, as Python prints them."""
KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".csv": "delimited",
    ".tsv": "delimited",
    ".ndjson": "json",
    ".json": "json",
    ".txt": "delimited",
    ".tab": "delimited",
    ".dat": "delimited",
    ".psv": "delimited",
}
"""Kinds by the ending of a name in small letters, without that of a compression."""
USUAL = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
DELIMITERS = (",", "\t", ";", "|", "::")
SPOKEN = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|", "space": " "}
SAMPLE = 1 << 18
"""Bytes by whose lines delimiters are compared."""
CONSISTENT = 0.6
"""Share of rows with as many values as most, that makes a delimiter possible."""
STAND_INS = "\x1f\x1e\x1d\x1c\x01\x02"
"""What takes the place of a delimiter of several letters; the first that a file does not hold."""
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "a database",
}


@dataclass(frozen=True)
class FileFormat:
    """How a file is to be read."""

    compression: Compression = ""
    encoding: Encoding = field(default_factory=Encoding)
    kind: Kind = "delimited"
    delimiter: str = ","
    quoted: Quoting = "none"
    header: bool = True
    names: tuple[str, ...] = ()
    """Of a delimited file: names of its columns, all different."""
    extra: bool = False
    """Whether rows end with a delimiter that the header lacks."""
    skipped: int = 0
    """Lines before the first row of values: the header, blank lines, and `sep=`."""
    has_nuls: bool = False
    """Whether the text holds NULs, which are left out."""
    stand_in: str = ""
    """One letter that takes the place of a delimiter of several."""

    @property
    def separator(self) -> str:
        return self.stand_in or self.delimiter


def suffix_of(path: Path) -> str:
    """The ending of a name in small letters, without that of a compression: Items.CSV.gz → .csv."""
    name = path.name.lower()
    for ending in SUFFIXES:
        name = name.removesuffix(ending)
    return Path(name).suffix


def recognize(
    path: Path, settings: CatalogConfig, notes: Notes, names: list[str] | None = None
) -> FileFormat:
    """The format of a file by all of its content; guesses that could be wrong are noted.

    `names`: of a delimited file's columns, if they are known. Raises VitrineError for an empty file
    and for one that is no table.
    """
    if path.stat().st_size == 0:
        raise VitrineError(f"{path} is empty; it needs a header and at least one row.")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PAR1") or suffix_of(path) == ".parquet":
        if suffix_of(path) != ".parquet":
            notes.add(path.name, "is parquet by its content", remedy="rename it to .parquet")
        return FileFormat(kind="parquet")
    for magic, what in OTHER_FILES.items():
        if start.startswith(magic):
            raise VitrineError(f"{path} is {what}, no table; save it as CSV or parquet.")
    found = FileFormat(compression=recognize_compression(path))
    head = next(byte_blocks(path, found.compression, HEAD), b"")
    if not head:
        raise VitrineError(f"{path} is empty; it needs a header and at least one row.")
    found = replace(found, encoding=_recognize_encoding(path, found, head, settings, notes))
    sample = _sample(path, found)
    if not sample.strip():
        raise VitrineError(f"{path} is empty; it needs a header and at least one row.")
    found = replace(found, has_nuls=_has_nuls(path, found, notes))
    found = replace(found, kind=_recognize_kind(path, sample.replace("\0", ""), notes, names))
    if found.kind != "delimited":
        return found
    return _recognize_rows(path, found, sample.replace("\0", ""), settings, notes, names)


def raw_text(path: Path, found: FileFormat, notes: Notes | None = None) -> Iterator[bytes]:
    """The file's text in UTF-8, in blocks, without NULs."""
    blocks = byte_blocks(path, found.compression)
    text = utf8_blocks(path, blocks, found.encoding, path.name, Notes() if notes is None else notes)
    for block in text:
        yield block.replace(b"\0", b"") if found.has_nuls else block


def raw_lines(path: Path, found: FileFormat, notes: Notes | None = None) -> Iterator[bytes]:
    """The same in blocks of whole lines, with one letter between values."""
    separator, stand_in = found.delimiter.encode(), found.stand_in.encode()
    for block in line_blocks(path, raw_text(path, found, notes)):
        yield block.replace(separator, stand_in) if stand_in else block


def _recognize_encoding(
    path: Path, found: FileFormat, head: bytes, settings: CatalogConfig, notes: Notes
) -> Encoding:
    if settings.encoding != "auto":
        return named_encoding(settings.encoding)
    wide = wide_encoding(head)
    if is_binary(head.decode(wide, "replace").encode() if wide else head):
        raise VitrineError(
            f"{path} cannot be read: it holds binary data and no text; tables are parquet, jsonl, "
            "csv or tsv files."
        )
    if wide and wide != "utf-8-sig":
        if not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
            notes.add(
                path.name,
                f"is read as {wide}, by the NULs between its letters",
                remedy="if that is wrong, set --catalog.encoding",
            )
        return Encoding(wide)
    if is_utf8(byte_blocks(path, found.compression)):
        return Encoding(wide or "utf-8")
    return decide_encoding(
        line_blocks(path, byte_blocks(path, found.compression)), path.name, notes
    )


def _sample(path: Path, found: FileFormat) -> str:
    """The first SAMPLE bytes of text, in whole lines if there is more."""
    raw = next(byte_blocks(path, found.compression, SAMPLE), b"")
    head = next(utf8_blocks(path, [raw], found.encoding, path.name, Notes()), b"")
    whole = len(raw) < SAMPLE
    end = 1 + max(head.rfind(b"\n"), head.rfind(b"\r", 0, len(head) - 1))
    return (head if whole or not end else head[:end]).decode("utf-8", "replace")


def _has_nuls(path: Path, found: FileFormat, notes: Notes) -> bool:
    nuls = sum(block.count(b"\0") for block in raw_text(path, found))
    if nuls:
        notes.add(path.name, f"{nuls} NULs in its text are left out", count=nuls)
    return bool(nuls)


def _recognize_kind(path: Path, sample: str, notes: Notes, names: list[str] | None) -> Kind:
    kind = KINDS.get(suffix_of(path), "delimited")
    lines = [line for line in sample.splitlines() if line.strip()]
    first = lines[0].strip() if lines else ""
    if names is None and kind == "delimited" and first[:1] == "{" and first[-1:] == "}":
        kind = (
            "json" if _is_object(first, json.loads) or _is_object(first, ast.literal_eval) else kind
        )
        if kind == "json":
            notes.add(
                path.name, "holds JSON objects, by its first line", remedy="rename it to .jsonl"
            )
    if kind == "json" and first[:1] == "{":
        objects = [line for line in lines[:20] if not _is_object(line, json.loads)]
        if any(_is_object(line, ast.literal_eval) for line in objects):
            notes.add(path.name, "its lines are dictionaries of Python rather than JSON")
            return "python"
    return kind


def _is_object(line: str, parse: object) -> bool:
    try:
        return isinstance(parse(line.strip()), dict)  # pyright: ignore[reportCallIssue]
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return False


# Delimited files


def _recognize_rows(
    path: Path,
    found: FileFormat,
    sample: str,
    settings: CatalogConfig,
    notes: Notes,
    names: list[str] | None,
) -> FileFormat:
    sep = re.match(r'"?sep=([^"\r\n]{1,2})"?\r?\n', sample)
    delimiter = sep[1] if sep else None
    if settings.delimiter != "auto":
        delimiter = _named_delimiter(settings.delimiter)
    body = sample[sep.end() :] if sep else sample
    if delimiter is None:
        delimiter = _decide_delimiter(path, body, settings, notes)
    if len(delimiter.encode()) > 1:
        stand_in = next((one for one in STAND_INS if one not in sample), STAND_INS[0])
        found = replace(found, stand_in=stand_in)
        body = body.replace(delimiter, stand_in)
    found = replace(found, delimiter=delimiter)
    columns = len(names) if names else _most_columns(body, found.separator)[0]
    found = replace(found, quoted=_decide_quoting(path, found, columns, settings, notes))
    rows = _first_rows(path, body, found, columns)
    first = rows[0][1] if rows else []
    header = settings.header == "yes" or (
        settings.header == "auto" and names is None and is_header(first, [r for _, r in rows[1:]])
    )
    found = replace(
        found, header=header, skipped=bool(sep) + (rows[0][0] if header and rows else 0)
    )
    return _name_columns(path, found, rows, notes, names)


def _named_delimiter(given: str) -> str:
    delimiter = SPOKEN.get(given.lower(), given)
    if not delimiter or any(letter in delimiter for letter in '\r\n"\0'):
        raise VitrineError(
            f"catalog.delimiter {given!r} cannot separate columns; use auto, or letters such as "
            "',', ';', '|', tab or '::'."
        )
    return delimiter


def _most_columns(text: str, delimiter: str) -> tuple[int, float, bool]:
    """The number of values of most rows, the share of rows that have it, and whether the first has."""
    best = (1, 0.0, False)
    ways: list[Quoting] = ["doubled", "none"] if '"' in text else ["none"]
    if r"\"" in text:
        ways.append("escaped")
    for quoting in ways:
        try:
            lengths = [len(row) for _, row in split_rows(text, delimiter, quoting)]
        except csv.Error:
            continue
        counts = Counter(lengths)
        if not counts:
            continue
        # A quote that is not closed swallows rows: few rows are no consistent ones.
        columns, rows = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
        share = rows / len(lengths)
        if columns > 1 and (share > best[1] or best[0] == 1):
            best = (columns, share, lengths[0] == columns)
    return best


def _decide_delimiter(path: Path, text: str, settings: CatalogConfig, notes: Notes) -> str:
    usual = USUAL.get(suffix_of(path))
    order = sorted(DELIMITERS, key=lambda one: one != usual)
    scored = []
    for place, delimiter in enumerate(order):
        stand_in = "\x1f" if len(delimiter) > 1 else delimiter
        columns, share, leads = _most_columns(text.replace(delimiter, stand_in), stand_in)
        if columns > 1 and share >= CONSISTENT:
            leads = leads or settings.header == "no"
            scored.append(((leads, round(share, 2), -place, columns), delimiter, columns))
    if not scored:
        return usual or ","
    _, delimiter, columns = max(scored)
    others = sorted(one for one in scored if one[1] != delimiter)
    if delimiter != usual and (usual or others or suffix_of(path) in (".txt", ".dat")):
        notes.add(
            path.name,
            f"its columns are separated by {delimiter!r}, as its lines have {columns} values each",
            remedy="if that is wrong, set --catalog.delimiter",
        )
    return delimiter


def _decide_quoting(
    path: Path, found: FileFormat, columns: int, settings: CatalogConfig, notes: Notes
) -> Quoting:
    if settings.quote == "none":
        return "none"
    survey = QuoteSurvey(ord(found.separator), columns)
    if not any(b'"' in block for block in raw_text(path, found)):
        return "none"
    for block in raw_lines(path, found):
        survey.add(block)
    quoting = survey.decide(forced=settings.quote == "double")
    said = {
        "none": f"its {survey.quotes} double quotes are letters and enclose no values",
        "mixed": "its double quotes enclose some values and are letters in others, row by row",
        "escaped": r"its double quotes enclose values, and \" is one within them",
    }
    if quoting in said:
        remedy = "double" if quoting == "none" else "none"
        notes.add(
            path.name, said[quoting], remedy=f"if that is wrong, set --catalog.quote {remedy}"
        )
    return quoting


def _first_rows(path: Path, text: str, found: FileFormat, columns: int) -> list[tuple[int, Row]]:
    if found.quoted == "mixed":
        return list(MixedRows(found.separator, columns).split(text, final=True))
    with refusing(path):
        return list(split_rows(text, found.separator, found.quoted))


def _name_columns(
    path: Path,
    found: FileFormat,
    rows: list[tuple[int, Row]],
    notes: Notes,
    names: list[str] | None,
) -> FileFormat:
    where = path.name
    first = rows[0][1] if rows else []
    lengths = Counter(len(row) for _, row in rows[found.header :])
    most = lengths.most_common(1)[0][0] if lengths else len(first)
    if names is not None:
        return replace(found, names=tuple(names))
    if not found.header:
        wide = max(most, 1)
        notes.add(
            where,
            "its first row is data, so that its columns are column_1, column_2, …",
            examples=first,
            remedy="name them by --catalog.roles, such as '{item_id: column_1}', or set "
            "--catalog.header yes",
        )
        return replace(found, names=tuple(f"column_{n}" for n in range(1, wide + 1)))
    if not first:
        raise VitrineError(f"{path} is empty; it needs a header and at least one row.")
    values = [row for _, row in rows[1:]]
    extra = most == len(first) + 1 and not any(row[-1] for row in values if len(row) == most)
    if most == len(first) + 1 and not extra and is_row_numbers([row[0] for row in values[:1000]]):
        first = ["", *first]
    if first[0].strip() in ("", "Unnamed: 0") and is_row_numbers(
        [row[0] for row in values[:1000] if row]
    ):
        notes.add(where, "its first column has no name and holds row numbers", remedy="remove it")
    return replace(found, names=tuple(column_names(first, where, notes)), extra=extra)
