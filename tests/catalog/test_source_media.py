"""Datasets with pictures, videos or precomputed features beside their tables."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from catalog.config import CatalogConfig
from catalog.doctor.run import check_catalog
from catalog.errors import VitrineError
from tests.catalog.sources_kit import Layout, write


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_labels_of_mmrec_are_a_given_split(tmp_path: Path) -> None:
    rows = "userID\titemID\trating\ttimestamp\tx_label\n0\t1\t5.0\t9\t0\n0\t2\t5.0\t8\t1\n0\t0\t1.0\t7\t2\n"
    folder = write(tmp_path, {"baby/baby.inter": rows})
    np.save(folder / "baby" / "image_feat.npy", np.zeros((4, 2)))
    found = Layout(folder, "mmrec")
    assert found.of("split") == ["train", "validation", "test"]
    assert found.of("time") == ["9", "8", "7"]
    assert found.item("item_id") == ["1", "2", "0"]
    assert "image_feat.npy: is read by an import" in found.said
    write(folder, {"baby/i_id_mapping.csv": "asin\titemID\nB0\t0\nB1\t1\nB2\t2\nB3\t3\n"})
    mapped = Layout(folder / "baby", "mmrec")
    assert mapped.item("item_id") == ["0", "1", "2", "3"]
    assert mapped.items["original_id"].to_pylist() == ["B0", "B1", "B2", "B3"]


TITLES = 'item,title\n1,"One, two, ""three"""\n2,Plain, with comma\n3,\n'


def test_titles_of_microlens_may_hold_commas(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "MicroLens-50k_pairs.csv": "user,item,timestamp\n5,1,1583378629552\n5,2,1583378629553\n",
        "MicroLens-50k_pairs.tsv": "5\t1 2\n",
        "MicroLens-50k_titles.csv": TITLES,
        "MicroLens-50k_likes_and_views.txt": "1\t7\t9\n",
        "MicroLens-50k_videos/2.mp4": b"x",
    }
    picture(tmp_path / "MicroLens-50k_covers" / "1.jpg")
    found = Layout(write(tmp_path, files), "microlens")
    assert found.pairs == [("5", "1"), ("5", "2")]
    assert found.of("time") == ["1583378629552", "1583378629553"]
    assert found.item("title") == ['One, two, "three"', "Plain, with comma", ""]
    assert found.item("image") == ["MicroLens-50k_covers/1.jpg", None, None]
    assert found.items["video"].to_pylist() == [None, "MicroLens-50k_videos/2.mp4", None]
    assert "likes_and_views.txt: is not read" in found.said


def test_sequences_of_microlens_are_unfolded(tmp_path: Path) -> None:
    found = Layout(write(tmp_path, {"M_pairs.tsv": "5\t1 2\n6\t3\n"}), "microlens")
    assert found.pairs == [("5", "1"), ("5", "2"), ("6", "3")]
    assert found.item("item_id") == ["1", "2", "3"]
    assert "has no times" in found.said


def test_tables_of_pixelrec_differ_by_their_columns(tmp_path: Path) -> None:
    information = (
        "item_id,view_number,comment_number,thumbup_number,share_number,coin_number,"
        'favorite_number,barrage_number,title,tag,description\nv1,9,9,9,9,9,9,9,T,food,"a, b"\n'
    )
    files: dict[str, str | bytes] = {
        "interactions/Pixel200K.csv": "item_id,user_id,timestamp\nv1,u1,1648000000\n",
        "information/Pixel200K.csv": information,
    }
    picture(tmp_path / "cover" / "v1.jpg")
    found = Layout(write(tmp_path, files), "pixelrec")
    assert found.raw.name == "Pixel200K"
    assert found.pairs == [("u1", "v1")]
    assert found.item("image") == ["cover/v1.jpg"]
    assert "view_number" not in found.items.column_names


def test_ninerec_is_read_with_and_without_times(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "QB/QB_pair.csv": "user_id,item_id\nu1,1\nu1,2\n",
        "QB/QB_item.csv": '1,标题,"Title, one"\n2,标题二,Two\n',
        "DY/DY_behaviour.tsv": "u1\t2 1\n",
        "DY/DY_item.csv": "item_id,title\n1,A\n2,B\n",
    }
    picture(tmp_path / "QB" / "QB_cover" / "2.jpg")
    folder = write(tmp_path, files)
    found = Layout(folder, "ninerec", subset="QB")
    assert found.pairs == [("u1", "1"), ("u1", "2")]
    assert found.item("title") == ["Title, one", "Two"]
    assert found.item("image") == [None, "QB/QB_cover/2.jpg"]
    assert "has no times" in found.said
    assert Layout(folder, "ninerec", subset="DY").pairs == [("u1", "2"), ("u1", "1")]


def test_listens_of_yambda_count_from_half_a_track(tmp_path: Path) -> None:
    folder = tmp_path / "flat" / "50m"
    folder.mkdir(parents=True)
    listens = {"uid": [1, 1], "timestamp": [5, 10], "item_id": [7, 8], "is_organic": [1, 0],
               "played_ratio_pct": [100, 49], "track_length_seconds": [200, 100]}  # fmt: skip
    parquet.write_table(pa.table(listens), folder / "listens.parquet")
    parquet.write_table(
        pa.table({k: listens[k] for k in ("uid", "timestamp", "item_id")}), folder / "likes.parquet"
    )
    parquet.write_table(
        pa.table({"artist_id": [3, 4], "item_id": [7, 7]}),
        folder.parent.parent / "artist_item_mapping.parquet",
    )
    found = Layout(folder, "yambda", subset="listens")
    assert [str(item) for _, item in found.pairs] == ["7"]
    assert found.items["artist_id"].to_pylist() == [["3", "4"]]
    assert "1 listens of less than 50 percent" in found.said
    with pytest.raises(VitrineError, match="holds 2 kind of events: likes, listens"):
        Layout(folder, "yambda")


def test_photos_of_yelp_belong_to_businesses(tmp_path: Path) -> None:
    rows = {
        "business": {"business_id": "b1", "name": "Café", "city": "X", "stars": 4.5, "review_count": 9,
                     "is_open": 1, "attributes": {"WiFi": "u'free'"}, "categories": "Food, Cafes"},
        "review": {"review_id": "r", "user_id": "u", "business_id": "b1", "stars": 5.0, "useful": 0,
                   "text": "Good", "date": "2018-07-07 22:09:11"},
        "photo": {"photo_id": "p1", "business_id": "b1", "caption": "Bar", "label": "inside"},
    }  # fmt: skip
    for name, row in rows.items():
        write(tmp_path, {f"yelp_academic_dataset_{name}.json": json.dumps(row) + "\n"})
    picture(tmp_path / "photos" / "p1.jpg")
    found = Layout(tmp_path, "yelp")
    assert found.item("image") == [["photos/p1.jpg"]]
    assert found.item("category") == [["Food", "Cafes"]]
    assert found.items["captions"].to_pylist() == [["Bar"]]
    assert found.of("rating") == [5.0]
    assert not {"stars", "review_count"} & set(found.items.column_names)
    report = check_catalog(CatalogConfig(str(tmp_path), source="yelp"))
    assert report.facts["items with an image"] == "1 (100.0%)"


def test_any_two_tables_are_named_by_path(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "shop/goods.csv": "sku,name\n007,Mug\n",
        "log/rows.tsv": "user\titem\n1\t007\n",
        "shop/ratings.csv": "user,item,rating\n2,007,4\n",
    }
    folder = write(tmp_path, files)
    path = f"items={folder}/shop/goods.csv interactions={folder}/log/rows.tsv"
    assert Layout(path, "table").pairs == [("1", "007")]
    found = Layout(folder / "shop" / "goods.csv", "table")
    assert found.pairs == [("2", "007")]
    assert "is read as the interactions" in found.said
    write(tmp_path, {"log/more.tsv": "user\titem\n9\t007\n"})
    path = f"items={folder}/shop/goods.csv interactions={folder}/log/*.tsv"
    assert sorted(Layout(path, "table").pairs) == [("1", "007"), ("9", "007")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("items=a.csv", "names no interactions"),
        ("item=a.csv interactions=b.csv", "Did you mean 'items'"),
        ("items=a.csv interactions=b.csv", r"a\.csv does not exist"),
        ("nowhere.csv", "is no file"),
        ("items=a*.csv interactions=b.csv", r"no file matches 'a\*\.csv'"),
    ],
)
def test_a_path_that_names_no_two_tables_is_refused(path: str, message: str) -> None:
    with pytest.raises(VitrineError, match=message):
        Layout(path, "table")
