"""Delimited files are read as what they are, every row is kept, and what was guessed is said."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_batches, read_table

PLAIN = b"item_id,title\n007,Mug\n010,Jug\n"
ROWS = [("007", "Mug"), ("010", "Jug")]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[tuple], Notes]]:
    """Writes a file and reads it: its rows, and the notes."""

    def read(content: bytes | str, name: str = "items.csv", **config: Any) -> Any:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        notes = Notes()
        table = read_table(path, CatalogConfig(**config), notes)
        read.names = table.column_names  # pyright: ignore[reportFunctionMemberAccess]
        return [tuple(row.values()) for row in table.to_pylist()], notes

    return read


def said(notes: Notes) -> str:
    return " | ".join(map(str, notes.listed))


def test_nothing_is_said_about_a_plain_file(read) -> None:
    assert read(PLAIN) == (ROWS, Notes())
    assert read(PLAIN.replace(b",", b"\t"), "items.tsv") == (ROWS, Notes())
    assert read(b'item_id,title\n007,"a, ""b""\nc"\n') == ([("007", 'a, "b"\nc')], Notes())


# Compression

PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["items.csv.{}", "Items.CSV"])
def test_compressed_files_are_read_whatever_their_name(read, kind: str, name: str) -> None:
    packed = PACK[kind](PLAIN)
    assert read(packed, name.format(kind)) == (ROWS, Notes())
    more = packed + PACK[kind](b"011,Cup\n")
    assert read(more, name.format(kind))[0] == [*ROWS, ("011", "Cup")]


@pytest.mark.parametrize("kind", PACK)
def test_a_truncated_archive_is_refused_in_one_line(read, kind: str) -> None:
    packed = PACK[kind](PLAIN * 500)
    for damaged in (packed[:-9], packed[: len(packed) // 2], packed[:20] + b"\xff" * 30):
        with pytest.raises(VitrineError, match=r"items\.csv cannot be read: ") as error:
            read(damaged)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_refused(read, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.MIN_CHECKED", 1 << 16)
    monkeypatch.setattr("catalog.reading.streams.MAX_RATIO", 20)
    with pytest.raises(VitrineError, match=r"times what they take on disk.*unpack or split"):
        read(PACK[kind](b"a,b\n" * 500_000))


# Encoding

SPECIAL = "item_id,title\n007,Café „Ü“ – 5 €\n"


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-32", ""),
        ("utf-16-le", "read as utf-16-le"),
        ("utf-16-be", "read as utf-16-be"),
        ("cp1252", "read as cp1252 (it has bytes from 0x80 to 0x9f) ('Café'"),
    ],
)
def test_encodings_are_recognised(read, encoding: str, note: str) -> None:
    rows, notes = read(SPECIAL.encode(encoding))
    assert rows == [("007", "Café „Ü“ – 5 €")]
    assert read.names == ["item_id", "title"]
    assert note in said(notes)
    assert bool(note) == bool(notes.listed)


def test_a_late_byte_decides_the_encoding_of_the_whole_file(
    read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 4096)
    rows, notes = read(b"item_id,title\n" + b"x,y\n" * 9000 + b"z,caf\xe9\n")
    assert rows[-1] == ("z", "café")
    assert len(rows) == 9001
    assert "read as latin-1 (it has no bytes from 0x80 to 0x9f) ('café')" in said(notes)


def test_broken_utf8_stays_utf8(read) -> None:
    rows, notes = read("item_id,title\n1,Müßiggänger\n2,Öl\n".encode() + b"3,caf\xc3\n")
    assert rows == [("1", "Müßiggänger"), ("2", "Öl"), ("3", "caf\ufffd")]
    (note,) = notes.listed
    assert (note.kind, note.count, note.examples) == ("empty", 1, ("caf\ufffd",))


def test_other_alphabets_are_recognised_and_said(read) -> None:
    text = "item_id,title\n" + "1,Война и мир роман о любви\n2,Преступление и наказание\n" * 5
    rows, notes = read(text.encode("cp1251"))
    assert rows[0] == ("1", "Война и мир роман о любви")
    assert "read as cp1251 (by the frequencies of its letters)" in said(notes)


def test_settings_overrule_the_encoding(read) -> None:
    assert read(SPECIAL.encode(), encoding="latin-1")[0] != read(SPECIAL.encode())[0]
    assert read("item_id,title\n1,Ł\n".encode("cp1250"), encoding="cp1250")[0] == [("1", "Ł")]
    for name in ("utf-9", "rot13", "hex", "unicode_escape", "a\0b"):
        with pytest.raises(VitrineError, match=r"catalog\.encoding .* is unknown"):
            read(PLAIN, encoding=name)


def test_nuls_are_left_out_and_counted(read) -> None:
    rows, notes = read(b"item_id,title\n007,M\0ug\n010,Jug\0\n")
    assert rows == ROWS
    assert notes.listed[0].count == 2


@pytest.mark.parametrize(
    "start", [b"PK\x03\x04", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"]
)
def test_other_files_are_refused_by_their_kind(read, start: bytes) -> None:
    with pytest.raises(VitrineError, match=r"no table; save it as|binary data"):
        read(start + bytes(200))


# Delimiters and line ends


@pytest.mark.parametrize(
    ("delimiter", "name"),
    [
        (";", "items.csv"),
        ("|", "items.csv"),
        ("\t", "items.txt"),
        ("::", "items.dat"),
        (",", "x.tsv"),
    ],
)
def test_delimiters_are_decided_by_all_lines(read, delimiter: str, name: str) -> None:
    lines = [("item_id", "price", "title"), ("1", "2,50", "a b"), ("2", "7,25", "c")]
    lines = (
        lines if delimiter != "," else [[cell.replace(",", ".") for cell in row] for row in lines]
    )
    rows, notes = read("\n".join(delimiter.join(row) for row in lines), name)
    assert rows == [tuple(row) for row in lines[1:]]
    assert f"separated by {delimiter!r}, as its lines have 3 values each" in said(notes)
    assert "set --catalog.delimiter" in said(notes)


def test_a_header_without_delimiters_of_the_values_is_no_guide(read) -> None:
    rows, _ = read("item_id;price\n" + "".join(f"{n};{n},5\n" for n in range(50)))
    assert rows[3] == ("3", "3,5")


def test_settings_overrule_the_delimiter(read) -> None:
    assert read("a,b;c\n1,2;3\n", delimiter="semicolon")[0] == [("1,2", "3")]
    assert read("a~~b\n1~~2\n", delimiter="~~")[0] == [("1", "2")]
    with pytest.raises(VitrineError, match=r"catalog\.delimiter '\\n' cannot separate"):
        read(PLAIN, delimiter="\n")


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_line_ends_are_line_ends(read, end: bytes) -> None:
    assert read(PLAIN.replace(b"\n", end)) == (ROWS, Notes())


# Quotes


def test_a_stray_quote_loses_no_row(read) -> None:
    lines = [f"i{n}\tB\tword" for n in range(6)]
    lines[2] = 'i2\tB\t"He said it works'
    rows, notes = read("\n".join(["item_id\tk\ttitle", *lines]), "items.tsv")
    assert rows == [tuple(line.split("\t")) for line in lines]
    assert "double quotes are letters" in said(notes)
    lines[4] = 'i4\tB\tso it does"'
    rows, _ = read("\n".join(["item_id\tk\ttitle", *lines]), "items.tsv")
    assert rows == [tuple(line.split("\t")) for line in lines]


def test_quotes_that_enclose_most_values_enclose_them_beside_stray_ones(read) -> None:
    text = 'item_id,title\n"x","12" pipe"\n"y","d, e"\nz,5" disk\n"w","a\nb"\n"v","""so"""\n'
    rows, notes = read(text)
    assert rows == [
        ("x", '12" pipe'),
        ("y", "d, e"),
        ("z", '5" disk'),
        ("w", "a\nb"),
        ("v", '"so"'),
    ]
    assert "letters in others, row by row" in said(notes)


def test_mixed_quotes_are_read_across_blocks(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 64)
    rows, _ = read('item_id,title\n"q","5" disk"\n' + '"w","one\ntwo, three\nfour"\n' * 40)
    assert rows == [("q", '5" disk'), *[("w", "one\ntwo, three\nfour")] * 40]


def test_backslashes_escape_quotes_where_the_file_says_so(read) -> None:
    rows, notes = read('item_id;title\n"1";"a \\"b\\"; c"\n"2";"d"\n')
    assert rows == [("1", 'a "b"; c'), ("2", "d")]
    assert r"\" is one within them" in said(notes)
    assert read('item_id;title\n1;"It\\""; so"\n')[0] == [("1", 'It\\"; so')]


def test_settings_overrule_quotes(read) -> None:
    assert read('item_id,title\n"1","a"\n', quote="none")[0] == [('"1"', '"a"')]
    lines = 'item_id,k,title\n1,2,"a\n3,4,b"\n'
    assert read(lines)[0] == [("1", "2", '"a'), ("3", "4", 'b"')]
    assert read(lines, quote="double")[0] == [("1", "2", "a\n3,4,b")]


# Rows of other lengths


def test_rows_of_other_lengths_are_kept_and_counted(read) -> None:
    text = "item_id,title,brand\n1,a,b\n2\n3,c,d,e,f\n\n4,g,h,\n5,i,j\n"
    rows, notes = read(text)
    assert rows == [
        ("1", "a", "b"),
        ("2", None, None),
        ("3", "c", "d"),
        ("4", "g", "h"),
        ("5", "i", "j"),
    ]
    short, long = notes.listed
    assert (short.kind, short.count, short.examples) == ("empty", 1, ("line 3",))
    assert (long.kind, long.count, long.examples) == ("dropped", 1, ("line 4: e",))


def test_lines_are_counted_across_blocks(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 64)
    rows, notes = read("item_id,title\n" + "1,abc\n" * 100 + "2\n" + "1,abc\n" * 100)
    assert len(rows) == 201
    assert notes.listed[0].examples == ("line 102",)


def test_delimiters_at_the_end_of_all_rows_are_no_column(read) -> None:
    assert read("item_id,title\n007,Mug,\n010,Jug,\n") == (ROWS, Notes())


def test_a_very_long_value_is_read(read) -> None:
    long = "word " * 800_000
    rows, notes = read(f'item_id,title\n1,"{long}"\n2,b\n')
    assert rows == [("1", long), ("2", "b")]
    assert not notes.listed


# Headers


def test_a_file_without_header_keeps_its_first_row(read) -> None:
    rows, notes = read("N1\tnews\tA\nN2\tnews\tB\nN3\tsports\tC\n", "items.tsv")
    assert rows[0] == ("N1", "news", "A")
    assert read.names == ["column_1", "column_2", "column_3"]
    assert "--catalog.roles" in said(notes)
    rows, _ = read("N1\tnews\nN2\tnews\n", "items.tsv", header="yes")
    assert (rows, read.names) == ([("N2", "news")], ["N1", "news"])
    assert len(read(PLAIN, header="no")[0]) == 3


def test_numbers_of_columns_are_a_header(read) -> None:
    rows, _ = read("0;1;2\n044;Lightning;1996\n055;Dark;1994\n")
    assert (rows[0][0], read.names) == ("044", ["0", "1", "2"])


def test_repeated_and_blank_names_stay_columns(read) -> None:
    rows, notes = read("user_id,user_id,,x\n1,2,3,4\n")
    assert rows == [("1", "2", "3", "4")]
    assert read.names == ["user_id", "user_id.2", "column_3", "x"]
    assert "user_id" in said(notes)


def test_row_numbers_are_noted(read) -> None:
    for text in (",item_id,title\n0,a,b\n1,c,d\n", "item_id,title\n0,a,b\n1,c,d\n"):
        rows, notes = read(text)
        assert rows == [("0", "a", "b"), ("1", "c", "d")]
        assert read.names == ["column_1", "item_id", "title"]
        assert "holds row numbers" in said(notes)


def test_excels_line_about_the_separator_is_no_row(read) -> None:
    assert read("sep=;\nitem_id;title\n007;Mug\n010;Jug\n")[0] == ROWS


# Batches


def test_batches_hold_what_the_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 1000)
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\n" + "".join(f"{n},title {n}\n" for n in range(1000)))
    batches = list(read_batches(path, CatalogConfig(), Notes()))
    assert len(batches) > 10
    assert pa.Table.from_batches(batches) == read_table(path, CatalogConfig(), Notes())


def test_memory_for_batches_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id,title\n" + b"0123456789,some title of an item\n" * 2_000_000)
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for _ in read_batches(path, CatalogConfig(), Notes()):
        most = max(most, pool.bytes_allocated() - before)
    assert most < path.stat().st_size
