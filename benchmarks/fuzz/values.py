"""Parsers of values: dates, numbers, ids, HTML, names of columns."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from benchmarks.fuzz.edits import edited
from benchmarks.fuzz.kit import Parser
from catalog.columns import as_text
from catalog.notes import Notes
from catalog.reading.header import column_names, is_header, is_row_numbers
from catalog.roles import resolve_roles
from catalog.values.dates import is_clock, read_times
from catalog.values.html import plain_text
from catalog.values.ids import align_ids, match_hint, read_ids
from catalog.values.names import ITEM_ROLES, plain_name
from catalog.values.numbers import read_numbers

TEXT = st.text(max_size=20)
DATES = [
    *("2020-01-31", "31/12/2020 10:00", "1/2/20", "2020-01-31T10:00:00Z", "Jan 5, 2020 3:04 PM"),
    *(
        "1583378629552",
        "1583378629",
        "2020-02-30",
        "0000-00-00",
        "10:20",
        "2018-09-20 10:11:12 -0400",
    ),
    *(
        "20200131",
        "43831.5",
        "Mon, 06 Jan 2020 10:00:00 GMT",
        "9999-12-31 23:59:59.999999",
        "1e400",
    ),
]
NUMBERS = [
    *(
        "1",
        "1,5",
        "1.234,56",
        "$9.50",
        "9 €",
        "1'234.5",
        "(3)",
        "-",
        "from 14.99",
        "1e999",
        "٣",
        "½",
    ),
    *("Rs. 1,23,456", "NaN", "inf", "1-2", "5/10", "0x10", "1_000", "−3", "12.50 EUR", "9" * 400),
]
HTML = [
    b"<p>Blue,<br>soft &amp; warm</p><script>x</script><ul><li>a<li>b</ul>",
    b"&lt;b&gt;x&lt;/b&gt; &#x41; &#99999999; &nbsp; <!-- c --> <style>p{}</style>",
    b"<table><tr><td>1<td>2</table><a href='x'>y</a><![CDATA[z]]>",
]


def texts(values: list[str]) -> st.SearchStrategy[list[str | None]]:
    one = st.one_of(
        st.sampled_from(values),
        st.none(),
        TEXT,
        st.builds("{}{}".format, st.sampled_from(values), st.sampled_from(values)),
        edited([value.encode() for value in values], 2).map(lambda b: b.decode("utf8", "replace")),
    )
    return st.lists(one, min_size=1, max_size=6)


def column_of(values: list[Any], kind: Any = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind or pa.large_string())])


def _times(given: tuple[list[str | None], str], folder: Path) -> object:
    notes = Notes()
    column = column_of(given[0])
    is_clock(column)
    times = read_times(column, "time", given[1], notes)
    assert len(times) == len(given[0])
    return times.to_pylist(), notes.listed


def _numbers(given: tuple[list[str | None], str, bool], folder: Path) -> object:
    notes = Notes()
    numbers = read_numbers(
        column_of(given[0]), "price", "items", notes, decimal=given[1], rating=given[2]
    )
    assert len(numbers) == len(given[0])
    assert all(value is None or abs(value) < float("inf") for value in numbers.to_pylist())
    return numbers.to_pylist(), notes.listed


def _ids(given: tuple[list[Any], list[str | None]], folder: Path) -> object:
    notes = Notes()
    try:
        column = pa.chunked_array([pa.array(given[0])])
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None
    first = read_ids(column, "item_id", "items", notes)
    second = read_ids(column_of(given[1]), "item_id", "interactions", notes)
    first, second = align_ids(first, second, notes)
    hint = match_hint(first.unique(), second)
    assert len(first) == len(given[0])
    return first.to_pylist(), second.to_pylist(), hint, notes.listed


def _html(given: bytes, folder: Path) -> object:
    return plain_text(given.decode("utf8", "replace"))


def _names(given: tuple[list[str], list[str], list[list[str | None]]], folder: Path) -> object:
    notes = Notes()
    items, interactions = (column_names(names, "x", notes) for names in given[:2])
    for name in items:
        plain_name(name)
    rows = given[2]
    tables = [
        pa.table(
            {name: column_of([row[n % len(row)] for row in rows]) for n, name in enumerate(names)}
        )
        for names in (items, interactions)
    ]
    return resolve_roles(items, interactions, [], (tables[0], tables[1]), notes), notes.listed


def _header(given: list[list[str]], folder: Path) -> object:
    notes = Notes()
    first, *rows = given
    names = column_names(first, "x", notes)
    assert len(set(names)) == len(first)
    return is_header(first, rows), names, is_row_numbers([row[0] for row in given if row])


def _as_text(given: list[Any], folder: Path) -> object:
    try:
        column = pa.chunked_array([pa.array(given)])
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError):
        return None
    return as_text(column, "x").to_pylist()


NAMES = [name for names in ITEM_ROLES.values() for name in list(names)[:3]] + [
    "user_id",
    "Time",
    "",
    " ",
]
NAME = st.one_of(st.sampled_from(NAMES), TEXT)
CELL = st.one_of(
    st.none(), st.sampled_from(["1", "2", "a", "x y", "2020-01-01", "http://x/a.jpg"]), TEXT
)
IDS = st.one_of(
    st.lists(st.one_of(st.none(), st.integers()), min_size=1, max_size=5),
    st.lists(st.floats(), min_size=1, max_size=5),
    texts(["007", "7", "7.0", "1.2E+12", "nan", "", " a ", "None", "A", "a"]),
    st.lists(st.lists(TEXT, max_size=2), min_size=1, max_size=3),
    st.lists(st.binary(max_size=5), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.lists(st.datetimes(), min_size=1, max_size=3),
)
PARSERS = {
    "dates": Parser(
        st.tuples(texts(DATES), st.sampled_from(["auto", "day-first", "month-first"])), _times
    ),
    "numbers and prices": Parser(
        st.tuples(texts(NUMBERS), st.sampled_from(["auto", "point", "comma"]), st.booleans()),
        _numbers,
        again=4,
    ),
    "ids": Parser(st.tuples(IDS, texts(["007", "7", "7.0", "a", "A"])), _ids),
    "HTML to text": Parser(edited(HTML, 8), _html),
    "names and joins": Parser(
        st.tuples(
            st.lists(NAME, min_size=1, max_size=5),
            st.lists(NAME, min_size=1, max_size=5),
            st.lists(st.lists(CELL, min_size=1, max_size=3), min_size=1, max_size=4),
        ),
        _names,
        again=4,
    ),
    "header": Parser(
        st.lists(st.lists(NAME, min_size=1, max_size=4), min_size=1, max_size=4), _header
    ),
    "columns of any type": Parser(IDS, _as_text),
}
