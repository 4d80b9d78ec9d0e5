"""A seeded part of the fuzzing, and each fault that it found."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.fuzz import sources
from benchmarks.fuzz.kit import fuzz
from benchmarks.fuzz.run import PARSERS
from benchmarks.fuzz.watch import Watch
from catalog.config import CatalogConfig
from catalog.conversion.convert import convert
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.reading.crashes import DEEPEST, crashes_pyarrow, is_deep
from catalog.sources import SOURCES
from catalog.sources.batches import whole_table
from catalog.sources.objects import object_reader
from catalog.values.dates import read_times
from catalog.values.html import plain_text
from catalog.values.numbers import read_numbers
from catalog.values.paths import split_addresses
from catalog.yaml_files import parse_yaml

SLOW = ("numbers and prices", "compression")


@pytest.mark.parametrize("name", PARSERS)
def test_random_inputs_are_answered_in_one_line_or_read_alike(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    PARSERS[name].prepare(folder)
    found = fuzz(PARSERS[name], folder, 8 if name in SLOW else 20, number=1)
    assert found.faults == {}, found.inputs


def test_the_harness_sees_other_errors_and_changing_answers(tmp_path: Path) -> None:
    answers = iter(range(10**6))

    def parse(given: object, folder: Path) -> object:
        if next(answers) % 5 == 0:
            raise KeyError("x")
        return next(answers)

    broken = type(PARSERS["dates"])(PARSERS["dates"].inputs, parse)
    faults = fuzz(broken, tmp_path, 30).faults
    assert any(fault.startswith("KeyError") for fault in faults)
    assert "the same input gave another answer" in faults


def test_the_harness_sees_reads_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    (tmp_path / "out").touch()
    watch = Watch(tmp_path / "in")
    watch.is_watching = True
    (tmp_path / "in" / "a").read_bytes()
    (tmp_path / "in" / ".." / "out").read_bytes()
    watch.is_watching = False
    assert list(watch.outside) == [str(tmp_path / "in" / ".." / "out")]


def test_imports_of_damaged_layouts_account_for_every_row(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert fuzz(sources.IMPORT, tmp_path, 10, number=1).faults == {}


def texts(*values: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.large_string())])


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = VitrineError("the column a\nb\u2028c\x85d is unknown")
    assert str(error) == "the column a b c d is unknown"


@pytest.mark.parametrize(
    ("date", "seconds"), [("9999-12-31 23:59:59", 253402300799), ("0001-01-01", -62135596800)]
)
def test_dates_far_away_are_read(date: str, seconds: int) -> None:
    assert read_times(texts(date), "t").to_pylist() == [seconds]
    fraction = read_times(texts("9999-12-31 23:59:59.5"), "t").to_pylist()
    assert fraction == [253402300799_500000]


def test_numbers_too_large_are_empty() -> None:
    read = read_numbers(texts("€ " + "9" * 400, "€ 3"), "price", "items", Notes())
    assert read.to_pylist() == [None, 3.0]


def test_html_with_an_unknown_section_is_read() -> None:
    assert plain_text("a<![CDATAle>b") == "a CDATAle>b"


def test_a_missing_column_of_a_layout_is_named(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Crime\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,978300760\n")
    (tmp_path / "links.csv").write_text("film,imdbId\n1,0211915\n")
    config = CatalogConfig(str(tmp_path), "movielens")
    with pytest.raises(VitrineError, match="has no column movieId"):
        convert(SOURCES["movielens"].tables(config), config)


OBJECT = '{"item_id": "1"}\n'


@pytest.mark.parametrize("first", ["null\n", "null"])
def test_json_that_crashes_pyarrow_is_read_otherwise(first: str, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(first + "\n" + OBJECT)
    schema = pa.schema([("item_id", pa.string())])
    for read in (
        read_table(path, CatalogConfig(), Notes()),
        whole_table(object_reader(path, schema, CatalogConfig(), Notes()))(),
    ):
        assert read["item_id"].to_pylist() == ["1"]


def test_a_line_that_holds_null_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(f"{OBJECT}null\n{OBJECT}")
    notes = Notes()
    table = read_table(tmp_path / "items.jsonl", CatalogConfig(), notes)
    assert table["item_id"].to_pylist() == ["1", "1"]
    assert notes.listed[-1].count == 1


def test_lines_nested_too_deep_are_dropped(tmp_path: Path) -> None:
    deep = '{"a": ' * 20_000 + "1" + "}" * 20_000
    path = tmp_path / "items.jsonl"
    path.write_text(OBJECT + deep + "\n" + OBJECT)
    notes = Notes()
    assert read_table(path, CatalogConfig(), notes)["item_id"].to_pylist() == ["1", "1"]
    assert "1 lines" in str(notes.listed[-1])


def test_depth_is_that_of_each_line() -> None:
    lines = b'{"a": "[["}\n' * 1000 + b'{"a": {"b": []}}\n' * 1000
    assert not is_deep(lines)
    assert not crashes_pyarrow(lines)
    assert is_deep(lines + b"[" * (DEEPEST + 1))
    assert is_deep(b"[1,[" * 200_000)


def test_a_sign_of_spreadsheets_alone_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sep=;\n")
    with pytest.raises(VitrineError, match="is empty"):
        read_table(tmp_path / "items.csv", CatalogConfig(), Notes())


def test_codes_outside_of_their_dictionary_are_refused(tmp_path: Path) -> None:
    from catalog.reading.table import _check_codes

    broken = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int8()), ["a"], safe=False)
    with pytest.raises(pa.ArrowInvalid, match="outside"):
        _check_codes(broken)
    table = pa.table({"item_id": pa.array(["a", None, "b"]).dictionary_encode()})
    parquet.write_table(table, tmp_path / "items.parquet")
    read = read_table(tmp_path / "items.parquet", CatalogConfig(), Notes())
    assert read["item_id"].to_pylist() == ["a", None, "b"]


def test_aliases_of_yaml_are_not_multiplied() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdef", "bcdefg", strict=True)
    ]
    assert parse_yaml("\n".join(lines[:4]), "x")["b"][0] == ["x"] * 10
    for bomb in ("\n".join(lines), "a: &a [*a]"):
        with pytest.raises(VitrineError, match="aliases repeat"):
            parse_yaml(bomb, "x")


def test_metadata_whose_pictures_are_no_json_are_read() -> None:
    from catalog.sources.amazon_2023 import _pictures

    column = pa.chunked_array([pa.array(["no json", '[{"large": 3}, {"large": "u"}]', None])])
    assert _pictures(column).to_pylist() == [None, ["u"], None]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[" * 3000 + "]" * 3000, None),
        ("[{[]: 1}]", None),
        ('["\\ud800.jpg"]', "?.jpg"),
        ('["a.jpg"]', "a.jpg"),
        ("['a.jpg', None]", "a.jpg"),
        ("[]", None),
    ],
    ids=range(6),
)
def test_odd_lists_of_pictures_are_read(text: str, path: str | None) -> None:
    found, _ = split_addresses(texts(text), "x", Notes())
    assert found.to_pylist() == [text if path is None and text != "[]" else path]


def test_a_bomb_is_noticed_after_a_gibibyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setattr("catalog.reading.streams.MIN_CHECKED", 1 << 22)
    packed = gzip.compress(b"7" * (1 << 22)) * 40
    (tmp_path / "items.csv.gz").write_bytes(packed)
    with pytest.raises(VitrineError, match="times what they take on disk"):
        read_table(tmp_path / "items.csv.gz", CatalogConfig(), Notes())
