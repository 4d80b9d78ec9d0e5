"""Random tables are read back as they were written, and random bytes are refused in one line."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table

QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PRINTABLE = st.characters(codec="cp1252", exclude_categories=["Cc", "Cs"])
PLAIN = st.text(PRINTABLE, max_size=8)
CELLS = st.text(st.one_of(PRINTABLE, st.sampled_from('",;\t|\n')), max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], str, int, str, str]:
    """Rows, delimiter, quoting, line end and encoding."""
    columns = draw(st.integers(2, 5))
    cells = draw(st.sampled_from([CELLS, PLAIN]))
    rows = draw(st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=1))
    return (
        rows,
        draw(st.sampled_from(",;\t|")),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])),
    )


def written(rows: list[list[str]], delimiter: str, quoting: int, end: str) -> str:
    file = io.StringIO(newline="")
    names = ["item_id", "title", "price", "brand", "image"][: len(rows[0])]
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(  # pyright: ignore[reportArgumentType]
        [names, *rows]
    )
    return file.getvalue()


@QUICK
@given(tables())
def test_what_csv_writes_is_read_back(tmp_path: Path, table: tuple) -> None:
    rows, delimiter, quoting, end, encoding = table
    text = written(rows, delimiter, quoting, end)
    path = tmp_path / "items.csv"
    path.write_bytes(text.encode(encoding))
    rules = CatalogConfig(encoding=encoding, delimiter=delimiter, header="yes")
    read = read_table(path, rules, Notes())
    assert [[cell or "" for cell in row.values()] for row in read.to_pylist()] == rows


@QUICK
@given(tables())
def test_nothing_needs_to_be_said_about_it(tmp_path: Path, table: tuple) -> None:
    """With no setting. Texts that hold other delimiters or spell quoted rows are no fair riddle."""
    rows, delimiter, _, end, encoding = table
    assume(not any(set(cell) & set(',;\t|"\n') - {delimiter} for row in rows for cell in row))
    path = tmp_path / "items.csv"
    path.write_bytes(written(rows, delimiter, csv.QUOTE_MINIMAL, end).encode(encoding))
    assume(any(any(row) for row in rows))
    read = read_table(path, CatalogConfig(), Notes())
    assert [[cell or "" for cell in row.values()] for row in read.to_pylist()] == rows


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "items.tsv", "items.parquet"])
@QUICK
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('{}[]",:\n\r\t 1a\\u\0é', max_size=60).map(lambda text: text.encode()),
        st.sampled_from([b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\x00"]).flatmap(
            lambda magic: st.binary(max_size=60).map(lambda rest: magic + rest)
        ),
    )
)
def test_random_bytes_are_read_or_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refusal = ""
    try:
        read_table(path, CatalogConfig(), Notes())
    except VitrineError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 600
