"""The other layouts: GroupLens' files and Hugging Face datasets."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from PIL import Image

from catalog.catalog import load_catalog
from catalog.columns import as_text
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table

GENRES = {"Action": 1, "Comedy": 5}


def film(number: int, title: str, *genres: str) -> str:
    flags = ["0"] * 19
    for genre in genres:
        flags[GENRES[genre]] = "1"
    return "|".join([str(number), title, "01-Jan-1995", "", "http://x", *flags])


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    (folder / "posters").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "posters" / "2.jpg")
    lines = [
        film(1, '"Amis" (les)', "Comedy", "Action"),
        film(2, "Café", "Comedy"),
        film(3, "Noir"),
    ]
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "u.data").write_text("9\t2\t5\t20\n9\t1\t1\t10\n8\t3\t3\t5\n")
    return folder


def load_films(folder: Path, **config):
    return load_catalog(CatalogConfig(str(folder), source="movielens", **config))


def test_movielens_reads_the_plain_files(films, histories):
    catalog = load_films(films)
    assert histories(catalog) == {"9": ["1", "2"], "8": ["3"]}
    assert catalog.items["title"][:] == ['"Amis" (les)', "Café", "Noir"]
    assert catalog.items["category"][:] == ["Action", "Comedy", None]
    assert catalog.items["image"][:] == [None, str(films / "posters" / "2.jpg"), None]
    assert catalog.items["text"][:] == [None, None, None]


def test_movielens_joins_descriptions_by_id(films):
    about = [
        {"item_id": 2, "overview": None, "plot": "A plot."},
        {"item_id": 1, "overview": "An overview.", "plot": "Unused."},
    ]
    (films / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in about))
    catalog = load_films(films)
    assert catalog.item_text(0) == '"Amis" (les). An overview.'
    assert catalog.item_text(1) == "Café. A plot."
    assert catalog.item_text(2) == "Noir"


def test_movielens_drops_low_ratings(films, histories):
    assert histories(load_films(films, min_rating=3)) == {"9": ["2"], "8": ["3"]}


def test_movielens_needs_its_files(films):
    (films / "u.data").unlink()
    with pytest.raises(VitrineError, match=r"holds no u\.data"):
        load_films(films)


def test_a_saved_hugging_face_dataset_loads_like_a_folder(tmp_path, histories):
    folder = tmp_path / "saved"
    items = datasets.Dataset.from_dict({"item_id": ["x", "y"], "title": ["X", "Y"]})
    rows = {"user_id": ["u", "u"], "item_id": ["y", "x"], "timestamp": [2, 1]}
    both = {"items": items, "interactions": datasets.Dataset.from_dict(rows)}
    datasets.DatasetDict(both).save_to_disk(str(folder))
    catalog = load_catalog(CatalogConfig(str(folder), source="huggingface"))
    assert histories(catalog) == {"u": ["x", "y"]}
    assert catalog.name == "saved"


def test_a_folder_that_is_no_saved_dataset_is_refused(tmp_path):
    with pytest.raises(VitrineError, match=r"cannot be opened.*items and interactions"):
        load_catalog(CatalogConfig(str(tmp_path), source="huggingface"))


def test_half_a_surrogate_pair_is_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    titles = [
        r"a \ud800 b",
        r"\udc00",
        r"\ud83d\ude00",
        r"\\ud800",
        r"\\\ud800x",
        r"\ud800\ud83d\ude00",
    ]
    rows = [f'{{"item_id": "{n}", "title": "{title}"}}\n' for n, title in enumerate(titles)]
    (tmp_path / "items.jsonl").write_text("".join(rows))
    found = read_table(tmp_path / "items.jsonl", CatalogConfig(), Notes())["title"].to_pylist()
    smile = "\N{GRINNING FACE}"
    assert found == ["a � b", "�", smile, r"\ud800", "\\�x", f"�{smile}"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    raw = pa.array([b"a\xed\xa0\x80b", b"fine", None], pa.binary())
    column = pa.chunked_array([raw.cast(pa.string(), safe=False)])
    found = as_text(column, "title").to_pylist()
    assert found == ["a���b", "fine", None]
