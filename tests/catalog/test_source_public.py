"""Public datasets of news, clothes and films."""

from pathlib import Path

import pytest
from PIL import Image

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.doctor.run import check_catalog
from catalog.errors import VitrineError
from tests.catalog.conftest import histories
from tests.catalog.sources_kit import Layout, write

RAW = Path(__file__).parents[3] / "shared" / "data" / "raw"

NEWS = (
    'N1\tsports\tgolf\tThe "best\tAn abstract\thttps://x\t[{"Label": "A"}]\t[]\n'
    "N2\tnews\tworld\tWar\t\thttps://x\t[]\t[]\nN3\tnews\tworld\tPeace\t\thttps://x\t[]\t[]\n"
    "N4\tnews\tworld\tMore\t\thttps://x\t[]\t[]\n"
)
BEHAVIORS = (
    "1\tU1\t11/12/2019 2:14:46 PM\tN3 N4\tN1-1 N2-0\n"
    "2\tU2\t11/11/2019 5:53:12 AM\t\tN2-1 N3-1\n"
    "3\tU1\t11/13/2019 12:00:01 AM\tN3 N4\tN2-1\n"
)


def test_clicks_of_mind_follow_the_undated_history(tmp_path: Path) -> None:
    folder = write(tmp_path, {"news.tsv": NEWS, "behaviors.tsv": BEHAVIORS})
    catalog = load_catalog(CatalogConfig(str(folder), source="mind"))
    assert histories(catalog) == {"U1": ["N3", "N4", "N1", "N2"], "U2": ["N2", "N3"]}
    assert catalog.items["title"][0] == 'The "best'
    said = "\n".join(map(str, catalog.notes))
    assert "1 news that were shown and not clicked" in said
    assert "histories are undated" in said


def test_folders_of_mind_are_a_given_split(tmp_path: Path) -> None:
    dev = "1\tU1\t11/15/2019 1:00:00 PM\tN3 N4 N1\tN3-1\n2\tU3\t11/15/2019 1:00:00 PM\tN1\tN4-1\n"
    test = "1\tU1\t11/20/2019 1:00:00 PM\tN3\tN1 N2\n"
    files: dict[str, str | bytes] = {}
    for part, rows in {"train": BEHAVIORS, "dev": dev, "test": test}.items():
        files |= {f"MINDsmall_{part}/news.tsv": NEWS, f"MINDsmall_{part}/behaviors.tsv": rows}
    found = Layout(write(tmp_path, files), "mind")
    held = [
        pair for pair, part in zip(found.pairs, found.of("split"), strict=True) if part == "test"
    ]
    assert held == [("U1", "N3"), ("U3", "N4")]
    assert found.pairs.count(("U1", "N3")) == 2  # once in the history of train, once clicked in dev
    assert ("U3", "N1") in found.pairs
    assert len(found.items) == 4
    assert "has no labels and is left out" in found.said


def test_the_real_heads_of_mind_are_read() -> None:
    if not (RAW / "mind").is_dir():
        pytest.skip("needs the heads of MIND")
    found = Layout(RAW / "mind", "mind")
    assert len(found.items) == 2000
    assert found.interactions["time"].null_count == 0


ARTICLES = (
    "article_id,product_code,prod_name,product_type_name,colour_group_name,detail_desc\n"
    '0108775015,0108775,Strap top,Vest top,Black,"Jersey top, narrow"\n'
    "0108775044,0108775,Strap top,Vest top,White,\n"
)
TRANSACTIONS = (
    "t_dat,customer_id,article_id,price,sales_channel_id\n"
    "2018-09-20,00ff,0108775044,0.05,2\n2018-09-20,00ff,0108775044,0.05,2\n"
    "2018-09-21,00aa,0108775015,0.03,1\n"
)


def test_hm_keeps_zeros_pictures_and_quantities(tmp_path: Path) -> None:
    folder = write(tmp_path, {"articles.csv": ARTICLES, "transactions_train.csv": TRANSACTIONS})
    (folder / "images" / "010").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "images" / "010" / "0108775015.jpg")
    report = check_catalog(CatalogConfig(str(folder), source="hm"))
    assert report.facts["items with an image"] == "1 (50.0%)"
    found = Layout(folder, "hm")
    assert found.item("image") == ["images/010/0108775015.jpg", None]
    assert found.pairs == [("00ff", "0108775044")] * 2 + [("00aa", "0108775015")]
    assert "quantities" in found.said


def test_hm_gives_ids_their_zero_back(tmp_path: Path) -> None:
    rows = ARTICLES.replace("0108775015,", "108775015,")
    folder = write(tmp_path, {"articles.csv": rows, "transactions_train.csv": TRANSACTIONS})
    found = Layout(folder, "hm")
    assert found.item("item_id")[0] == "0108775015"
    assert "1 ids lost their leading zero" in found.said


def test_a_missing_file_of_hm_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"articles.csv": ARTICLES, "transaction_train.csv": TRANSACTIONS})
    with pytest.raises(VitrineError, match=r"Did you mean 'transaction_train\.csv'"):
        Layout(folder, "hm")


@pytest.mark.parametrize("release", ["dat", "csv"])
def test_later_releases_of_movielens_have_lists_of_genres(tmp_path: Path, release: str) -> None:
    if release == "dat":
        files: dict[str, str | bytes] = {
            "movies.dat": (
                '1::Amélie: "x", (2001)::Comedy|Romance\n2::Heat (1995)::Crime\n'.encode("latin-1")
            ),
            "ratings.dat": "1::1::5::978300760\n1::2::3::978302109\n",
            "users.dat": "1::F::1::10::48067\n",
        }  # fmt: skip
    else:
        files = {
            "movies.csv": 'movieId,title,genres\n1,"Amélie: ""x"", (2001)",Comedy|Romance\n'
            "2,Heat (1995),(no genres listed)\n",
            "ratings.csv": "userId,movieId,rating,timestamp\n1,1,5.0,978300760\n1,2,3.5,978302109\n",
            "links.csv": "movieId,imdbId,tmdbId\n1,0211915,194\n",
            "tags.csv": "userId,movieId,tag,timestamp\n1,1,good,1\n",
        }
    (tmp_path / "posters").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "posters" / "2.jpg")
    found = Layout(write(tmp_path, files), "movielens")
    assert found.pairs == [("1", "1"), ("1", "2")]
    assert found.item("title") == ['Amélie: "x", (2001)', "Heat (1995)"]
    assert found.item("category") == [
        ["Comedy", "Romance"],
        ["Crime"] if release == "dat" else None,
    ]
    assert found.item("image") == [None, "posters/2.jpg"]
    if release == "csv":
        assert found.items["imdbId"].to_pylist() == ["0211915", None]
        assert "tags.csv: is not read" in found.said
