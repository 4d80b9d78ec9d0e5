"""RecBole's atomic files are read with their types and their split."""

from pathlib import Path

import pytest

from catalog.errors import VitrineError
from tests.catalog.sources_kit import Layout, write

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "01\tToy Story\t1995\tAnimation Comedy\n"
    "2\tHeat\t1995\t\n"
)


def test_types_of_the_header_shape_the_columns(tmp_path: Path) -> None:
    rows = "7\t01\t3.0\t8.81250949E8\n7\t2\t5\t881250950\n"
    folder = write(
        tmp_path, {"ml.inter": INTER + rows, "ml.item": ITEM, "ml.user": "user_id:token\n"}
    )
    found = Layout(folder, "recbole")
    assert found.pairs == [("7", "01"), ("7", "2")]
    assert found.of("time") == [881250949.0, 881250950.0]
    assert found.item("title") == ["Toy Story", "Heat"]
    assert found.item("category") == [["Animation", "Comedy"], None]
    assert "ml.user: is not read" in found.said


def test_parts_become_a_given_split_and_items_are_the_distinct_ids(tmp_path: Path) -> None:
    parts = {"train": "a\tx\t1\t1\na\ty\t1\t2\n", "valid": "a\tz\t1\t3\n", "test": "a\tw\t1\t4\n"}
    files: dict[str, str | bytes] = {
        f"d.{part}.inter": INTER + rows for part, rows in parts.items()
    }
    found = Layout(write(tmp_path, files), "recbole")
    assert found.of("split") == ["train", "train", "validation", "test"]
    assert found.item("item_id") == ["x", "y", "z", "w"]
    assert found.raw.name == "d"


def test_ids_of_other_names_are_found_by_place(tmp_path: Path) -> None:
    inter = "listener:token\tartist:token\tweight:float\n1\tx\t3\n"
    item = "artist:token\tname:token\ttags:token_seq\nx\tX\trock, pop music\n"
    found = Layout(write(tmp_path, {"l.inter": inter, "l.item": item}), "recbole")
    assert found.pairs == [("1", "x")]
    assert found.item("item_id") == ["x"]
    assert found.items["tags"].to_pylist() == [["rock", "pop music"]]
    assert "by its place" in found.said


def test_a_dataset_is_named_where_there_are_several(tmp_path: Path) -> None:
    folder = write(
        tmp_path, {"a.inter": INTER + "1\tx\t1\t1\n", "b.inter.gz": INTER + "1\ty\t1\t1\n"}
    )
    with pytest.raises(VitrineError, match=r"holds 2 datasets: a, b; name one, such as"):
        Layout(folder, "recbole")
    assert Layout(folder, "recbole", subset="b").pairs == [("1", "y")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.csv": "a,b\n"}, r"holds no file <name>\.inter"),
        ({"x.inter": "user_id\titem_id\n1\t2\n"}, "names no types"),
        ({"x.train.inter": INTER + "1\t2\t1\t1\n"}, "needs the parts train and test"),
        ({"x.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t2 3\t4\n"}, "one interaction"),
    ],
)  # fmt: skip
def test_what_is_no_recbole_dataset_is_refused(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(VitrineError, match=message):
        Layout(write(tmp_path, files), "recbole")
