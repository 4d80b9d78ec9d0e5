"""The three releases of Amazon's reviews."""

import json
from pathlib import Path

import pytest

from catalog.errors import VitrineError
from tests.catalog.sources_kit import Layout, write


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


META = lines(
    {
        "main_category": "All Beauty",
        "title": "Brush \ud83d\ude00",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["soft", "red"],
        "description": [],
        "price": "from 14.99",
        "images": [
            {"thumb": "t1", "large": "l1", "variant": "PT01", "hi_res": None},
            {"thumb": "t0", "large": "l0", "variant": "MAIN", "hi_res": "h0"},
        ],
        "videos": [],
        "store": "S",
        "categories": ["Beauty", "Brushes"],
        "details": {"Brand": "B"},
        "parent_asin": "B01",
        "bought_together": None,
    },
    {"title": "Comb", "price": 9.5, "images": [], "details": {"Other": 3}, "parent_asin": "B02"},
    {"title": "Soap", "price": None, "parent_asin": "0003"},
)
CUTS = (1628643414042, 1658002729837)
HEAD = "user_id,parent_asin,rating,timestamp"


def amazon_2023(folder: Path) -> Path:
    reviews = lines(
        {"rating": 5.0, "title": "t", "text": "good", "asin": "B01X", "parent_asin": "B01",
         "user_id": "U", "timestamp": CUTS[0] - 1, "images": [], "verified_purchase": True},
        {"rating": 1.0, "text": "bad", "parent_asin": "B99", "user_id": "U", "timestamp": CUTS[0]},
        {"rating": 1.0, "text": "", "parent_asin": "B02", "user_id": "V", "timestamp": CUTS[1]},
    )  # fmt: skip
    files: dict[str, str | bytes] = {
        "raw/meta_categories/meta_All_Beauty.jsonl.gz": META,
        "raw/review_categories/All_Beauty.jsonl": reviews,
        "raw/meta_categories/meta_Toys.jsonl": META,
        "benchmark/0core/rating_only/Toys.csv": f"{HEAD}\nU,B01,5.0,1\n",
    }
    for part in ("train", "valid", "test"):
        files[f"benchmark/5core/last_out_w_his/All_Beauty.{part}.csv"] = (
            f"{HEAD},history\nU,B0{1 + (part == 'test')},5.0,1600000000000,0003 B02\n"
        )
    return write(folder, files)


def test_metadata_of_2023_loses_what_leaks_and_keeps_mixed_prices(tmp_path: Path) -> None:
    found = Layout(amazon_2023(tmp_path), "amazon-2023", subset="raw_review_All_Beauty")
    assert found.items["parent_asin"].to_pylist() == ["B01", "B02", "0003"]
    assert found.item("title")[0] == "Brush \N{GRINNING FACE}"
    assert found.item("price") == ["from 14.99", "9.5", None]
    assert found.item("image") == [["h0", "l1"], None, None]
    assert "average_rating" not in found.items.column_names
    assert "average_rating, rating_number: counted when the data was collected" in found.said
    assert found.pairs == [("U", "B01"), ("U", "B99"), ("V", "B02")]
    assert found.of("review") == ["good", "bad", ""]
    assert found.of("split") == ["train", "validation", "test"]


def test_benchmark_files_of_2023_are_a_given_split(tmp_path: Path) -> None:
    found = Layout(amazon_2023(tmp_path), "amazon-2023", subset="5core_last_out_w_his_All_Beauty")
    assert found.of("split") == ["train", "validation", "test"]
    assert found.pairs == [("U", "B01"), ("U", "B01"), ("U", "B02")]
    assert "history repeats earlier rows" in found.said
    assert Layout(tmp_path, "amazon-2023", subset="Toys").pairs == [("U", "B01")]


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ("", "holds 3 parts: "),
        ("All_Beauty", "All_Beauty has 2 parts: "),
        ("Toy", "catalog.subset 'Toy' is no part of"),
    ],
)
def test_a_part_of_2023_is_named(tmp_path: Path, subset: str, message: str) -> None:
    with pytest.raises(VitrineError, match=message):
        Layout(amazon_2023(tmp_path), "amazon-2023", subset=subset)


REVIEWS = lines(
    {"reviewerID": "A1", "asin": "0001", "reviewerName": "N", "helpful": [0, 1], "reviewText": "ok",
     "overall": 5.0, "summary": "s", "unixReviewTime": 1370044800, "reviewTime": "06 1, 2013"},
    {"reviewerID": "A1", "asin": "B2", "overall": 3.0, "unixReviewTime": 1370044801},
)  # fmt: skip
META_2014 = (
    "{'asin': '0001', 'title': 'A \"b\"', 'price': 9.5, 'imUrl': 'http://x/1.jpg', 'related': "
    "{'also_bought': ['B2']}, 'salesRank': {'Toys': 3}, 'categories': [['Toys', 'Dolls'], ['Z']]}\n"
    "{'asin': 'B2', 'description': \"it's\", 'salesRank': 7, 'categories': [['Toys']]}\n"
)


def test_metadata_of_2014_are_dictionaries_of_python(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "reviews_Toys_5.json.gz": REVIEWS,
        "meta_Toys.json.gz": META_2014,
        "image_features_Toys.b": b"0" * 32,
    }
    found = Layout(write(tmp_path, files), "amazon-2014")
    assert found.pairs == [("A1", "0001"), ("A1", "B2")]
    assert found.of("time") == [1370044800, 1370044801]
    assert found.of("review") == ["ok", None]
    assert found.item("title") == ['A "b"', None]
    assert found.item("category") == ["Dolls", "Toys"]
    assert found.item("image") == ["http://x/1.jpg", None]
    assert found.items["description"].to_pylist() == [None, "it's"]
    assert "salesRank, related" in found.said
    assert "image_features_Toys.b: is read by an import" in found.said


def test_reviews_and_ratings_of_2018_are_both_read(tmp_path: Path) -> None:
    meta = lines(
        {"asin": "0001", "title": "A", "description": ["d"], "category": ["S", "T"], "price": "$9.50",
         "imageURL": ["u"], "imageURLHighRes": ["h"], "rank": ["#1"], "details": {"k": "v"}},
        {"asin": "0001", "title": "A again", "category": [], "imageURL": ["u2"], "imageURLHighRes": []},
        {"asin": "B2", "title": "var t = (new Date()).getTime();", "category": [],
         "imageURL": ["u2"], "imageURLHighRes": [], "rank": "5 in S"},
    )  # fmt: skip
    files: dict[str, str | bytes] = {
        "Software_5.json.gz": REVIEWS,
        "Software.csv": "0001,A1,5.0,1370044800\nB2,A1,3.0,1370044801\n",
        "meta_Software.json.gz": meta,
    }
    folder = write(tmp_path, files)
    for subset in ("Software_5", "Software"):
        found = Layout(folder, "amazon-2018", subset=subset)
        assert found.pairs == [("A1", "0001"), ("A1", "B2")]
    assert found.item("image") == [["h"], ["u2"]]
    assert found.item("category") == ["T", None]
    assert found.item("title") == ["A", None]
    assert "1 rows name an item that an earlier row describes" in found.said
