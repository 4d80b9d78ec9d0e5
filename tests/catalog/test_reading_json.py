"""Objects in JSON are read from lines and arrays, whatever types their values have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[dict], Notes]]:
    def read(content: bytes | str, name: str = "items.jsonl", **config: Any) -> Any:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        notes = Notes()
        return read_table(path, CatalogConfig(**config), notes).to_pylist(), notes

    return read


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 64)


def lines(values: list) -> str:
    return "".join(json.dumps({"a": value}) + "\n" for value in values)


def test_missing_keys_are_null_and_blank_lines_no_rows(read) -> None:
    rows, notes = read('{"a": 1}\n\n{"b": "x"}\r\n  \n')
    assert rows == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert not notes.listed


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["1 in X", ["#2"]], ["1 in X", '["#2"]']),
        ([1, "from 14.99", 2.5], ["1", "from 14.99", "2.5"]),
        ([{"b": 1}, "s", None], ['{"b": 1}', "s", None]),
        ([[1], ["é"]], ["[1]", '["é"]']),
        ([True, 1], ["true", "1"]),
        ([2**53 + 1, 1.5], ["9007199254740993", "1.5"]),
        ([2**70, 1], [str(2**70), "1"]),
    ],
)
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_a_column_of_several_types_is_text(read, values: list, texts: list, far: bool) -> None:
    between = [None] * 20 * far
    rows, notes = read(lines([values[0], *between, *values[1:]]))
    assert [row["a"] for row in rows] == [texts[0], *between, *texts[1:]]
    (note,) = notes.listed
    assert note.where == "items.jsonl: a"
    assert "are read as text" in note.what


@pytest.mark.usefixtures("small_blocks")
def test_whole_numbers_and_fractions_are_numbers(read) -> None:
    values = [*range(20), 0.5]
    rows, notes = read(lines(values))
    assert [row["a"] for row in rows] == values
    assert not notes.listed


@pytest.mark.usefixtures("small_blocks")
def test_large_whole_numbers_are_exact(read) -> None:
    values = [2**53 + 1, -(2**63), 2**63 - 1, 3] * 5
    assert [row["a"] for row in read(lines(values))[0]] == values


@pytest.mark.usefixtures("small_blocks")
def test_nested_columns_are_united(read) -> None:
    values = [{"x": 1, "l": []}, *[None] * 10, {"y": "b", "l": [1]}]
    rows, _ = read(lines(values))
    assert rows[0]["a"] == {"x": 1, "l": [], "y": None}
    assert rows[-1]["a"] == {"x": None, "l": [1], "y": "b"}


@pytest.mark.usefixtures("small_blocks")
def test_dates_stay_texts_where_some_are_none(read) -> None:
    values = ["2020-09-21T10:00:00Z"] * 5 + ["soon"]
    assert [row["a"] for row in read(lines(values))[0]] == values


def test_broken_lines_are_left_out_and_counted(read) -> None:
    rows, notes = read('{"a": "x"}\n{"a": \n[1]\n{"a": "y"}\n{"a": "z')
    assert [row["a"] for row in rows] == ["x", "y"]
    (note,) = notes.listed
    assert (note.kind, note.count) == ("dropped", 3)
    assert note.examples == ('line 2: {"a":', "line 3: [1]", 'line 5: {"a": "z')


def test_a_repeated_key_is_no_fault(read) -> None:
    assert read('{"a": 1, "a": 2}\n{"a": 3}\n')[0] == [{"a": 2}, {"a": 3}]


def test_a_file_without_objects_is_refused(read) -> None:
    with pytest.raises(VitrineError, match=r"cannot be read: it holds no object"):
        read("1\n2\n")
    with pytest.raises(VitrineError, match=r"cannot be read: it holds no object.*line 1: {.a"):
        read('{"a": \n')


OBJECTS = [
    {"item_id": "1", "title": 'a "b", [c] {d} \\'},
    {"item_id": "2", "tags": ["x", "y"], "n": {"k": [1, 2]}},
    {"item_id": "3", "title": "last\nline"},
] * 5


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["items.json", "items.jsonl"])
@pytest.mark.usefixtures("small_blocks")
def test_arrays_are_read_in_blocks(read, indent: int | None, name: str) -> None:
    rows, notes = read(json.dumps(OBJECTS, indent=indent), name)
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == OBJECTS
    assert not notes.listed


@pytest.mark.usefixtures("small_blocks")
def test_objects_of_several_lines_are_read(read) -> None:
    rows, _ = read("\n".join(json.dumps(row, indent=2) for row in OBJECTS), "items.json")
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == OBJECTS


def test_dictionaries_of_python_are_read(read) -> None:
    text = (
        "{'asin': 'A1', 'title': \"Child's puzzle\", 'price': 1.5}\n"
        "{\"asin\": 'A2', 'related': {'also': ['A1']}, 'new': True, 'x': None}\n"
        "{'asin': __import__('os').getcwd()}\n"
        "{'asin': 'A3'}\n"
    )
    rows, notes = read(text, "items.json")
    assert [row["asin"] for row in rows] == ["A1", "A2", "A3"]
    assert rows[0]["title"] == "Child's puzzle"
    assert rows[1]["related"] == {"also": ["A1"]}
    dictionaries, dropped = notes.listed
    assert "dictionaries of Python" in dictionaries.what
    assert (dropped.count, dropped.kind) == (1, "dropped")
    assert dropped.examples[0].startswith("line 3: ")


def test_objects_under_another_suffix_are_recognised(read) -> None:
    rows, notes = read('{"a": 1}\n{"a": 2}\n', "items.txt")
    assert rows == [{"a": 1}, {"a": 2}]
    assert "holds JSON objects" in notes.listed[0].what


def test_encodings_hold_for_json_too(read) -> None:
    rows, notes = read('{"a": "café"}\n'.encode("latin-1"))
    assert rows == [{"a": "café"}]
    assert "latin-1" in notes.listed[0].what
    assert read('{"a": "café"}\n'.encode("utf-16")) == ([{"a": "café"}], Notes())
