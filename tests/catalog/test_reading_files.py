"""Tables are found under many names, in parts, in subsets; real files are read with every record."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.folder import folder_tables

RAW = Path(__file__).parents[3] / "shared" / "data" / "raw"
ROWS = "user_id,item_id,timestamp\nu,1,5\nu,2,6\n"


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[dict[str, bytes | str]], Path]:
    """Writes the files of a catalog."""

    def build(files: dict[str, bytes | str]) -> Path:
        folder = tmp_path / "shop"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return build


def items_of(folder: Path) -> tuple[list[dict], str]:
    raw = folder_tables(CatalogConfig(str(folder)))
    return raw.read_items().to_pylist(), " | ".join(map(str, raw.notes.listed))


@pytest.mark.parametrize("name", ["Items.CSV", "ITEMS.csv.gz", "items.csv.gz", "items.txt"])
def test_names_are_found_in_any_case_and_packed(shop, name: str) -> None:
    content = b"item_id,title\n1,a\n2,b\n"
    packed = gzip.compress(content) if name.endswith("gz") else content
    folder = shop({name: packed, "Interactions.Csv": ROWS})
    assert load_catalog(CatalogConfig(str(folder))).items["title"][:] == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["items/part-{}.csv", "items-{}.csv", "items_{}.csv", "items.part{}.csv"]
)
def test_parts_are_read_in_the_order_of_their_numbers(shop, name: str) -> None:
    files = {name.format(n): f"item_id,title\n{n},t{n}\n" for n in (10, 2, 1)}
    hidden = {"items/_SUCCESS": "", "items/.part.crc": "x", "items/1.jpg": b"\xff\xd8"}
    rows, notes = items_of(shop(files | hidden | {"interactions.csv": ROWS}))
    assert [row["item_id"] for row in rows] == ["1", "2", "10"]
    assert not notes


def test_columns_of_parts_are_united_and_said(shop) -> None:
    files = {
        "items/a.csv": "item_id,title\n01,a\n",
        "items/b.jsonl.gz": gzip.compress(b'{"item_id": "02", "price": 2.5}\n'),
        "items/c.jsonl": '{"item_id": 3, "price": 2}\n',
        "interactions.csv": ROWS,
    }
    rows, notes = items_of(shop(files))
    assert rows == [
        {"item_id": "01", "title": "a", "price": None},
        {"item_id": "02", "title": None, "price": 2.5},
        {"item_id": "3", "title": None, "price": 2.0},
    ]
    assert "2 of 3 files have no column title" in notes
    assert "item_id: holds texts and numbers; all are read as text" in notes


def test_parquet_parts_with_images_keep_them(shop, tmp_path: Path) -> None:
    folder = shop({"interactions.csv": ROWS})
    (folder / "items").mkdir()
    image = [{"bytes": b"\xff\xd8", "path": "a.jpg"}]
    for n in (1, 2):
        table = pa.table({"item_id": [n], "image": image})
        parquet.write_table(table, folder / "items" / f"part-000{n}.parquet")
    rows, notes = items_of(folder)
    assert [row["image"]["bytes"] for row in rows] == [b"\xff\xd8"] * 2
    assert not notes


def test_parts_cut_from_one_file_share_the_first_header(shop) -> None:
    files = {"items-1.csv": "item_id,title\n1,a\n", "items-2.csv": "2,b\n3,c\n"}
    rows, notes = items_of(shop(files | {"interactions.csv": ROWS}))
    assert [row["item_id"] for row in rows] == ["1", "2", "3"]
    assert not notes


def test_a_file_beside_a_folder_of_its_name_is_said(shop) -> None:
    files = {"items.csv": "item_id,title\n1,a\n2,b\n", "items/b.csv": "item_id\n3\n"}
    rows, notes = items_of(shop(files | {"interactions.csv": ROWS}))
    assert len(rows) == 2
    assert "items/b.csv" in notes


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "Valid"])
def test_the_validation_subset_has_several_names(shop, name: str) -> None:
    parts = {f"interactions.{part}.csv": ROWS for part in ("train", name, "test")}
    folder = shop({"items.csv": "item_id,title\n1,a\n2,b\n"} | parts)
    raw = folder_tables(CatalogConfig(str(folder)))
    table = raw.read_interactions()
    assert table["split"].to_pylist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    said = any("read as the validation subset" in note.what for note in raw.notes.listed)
    assert said == (name.lower() != "validation")


def test_two_validation_subsets_are_refused(shop) -> None:
    parts = {f"interactions.{part}.csv": ROWS for part in ("train", "val", "dev", "test")}
    folder = shop({"items.csv": "item_id,title\n1,a\n"} | parts)
    with pytest.raises(VitrineError, match=r"interactions\.val\.csv and interactions\.dev\.csv"):
        folder_tables(CatalogConfig(str(folder)))


def test_subsets_with_other_columns_are_united(shop) -> None:
    parts = {f"interactions.{part}.csv": ROWS for part in ("train", "test")}
    parts["interactions.test.csv"] = "user_id,item_id,timestamp,rating\nu,1,9,5\n"
    raw = folder_tables(CatalogConfig(str(shop({"items.csv": "item_id\n1\n2\n"} | parts))))
    assert raw.read_interactions()["rating"].to_pylist() == [None, None, "5"]
    assert any("no column rating" in note.what for note in raw.notes.listed)


@pytest.mark.parametrize(
    ("name", "quoting"),
    [
        ("bx/BX-Books.csv", {"delimiter": ";"}),
        ("exports/gmerchant_en.tsv", {"delimiter": "\t"}),
        ("exports/shopify_apparel.csv", {}),
        ("exports/woo_sample_products.csv", {}),
        ("mind/behaviors.tsv", {"delimiter": "\t", "quoting": csv.QUOTE_NONE}),
        ("mind/news.tsv", {"delimiter": "\t", "quoting": csv.QUOTE_NONE}),
    ],
)
def test_every_record_of_a_real_file_is_read(name: str, quoting: dict) -> None:
    path = RAW / name
    if not path.is_file():
        pytest.skip(f"needs {name} in {RAW}")
    notes = Notes()
    table = read_table(path, CatalogConfig(), notes)
    encoding = "latin-1" if name.startswith("bx") else "utf-8"
    with path.open(newline="", encoding=encoding) as file:
        expected = list(csv.reader(file, **quoting))
    if not name.startswith("mind"):
        assert table.column_names == [
            cell or f"column_{n}" for n, cell in enumerate(expected.pop(0), 1)
        ]
    rows = [[cell or "" for cell in row.values()] for row in table.to_pylist()]
    assert rows == expected
    assert {note.kind for note in notes.listed} <= {"decided"}
