"""The imported folder is the catalog that the source is, and no row of it is lost without a reason."""

import dataclasses
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from catalog.atomic_write import list_files
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.doctor.run import check_catalog
from catalog.errors import VitrineError
from catalog.importing.config import ImportConfig
from catalog.importing.run import Imported, format_counts, run_import
from catalog.importing.store import Store
from catalog.notes import CountedNotes, Notes
from catalog.yaml_files import read_yaml

from .conftest import histories, write_table

Rows = list[dict[str, Any]]


def shop_rows(num: int = 400, seed: int = 3) -> tuple[Rows, Rows]:
    """Items and interactions of a small shop, with values as shops write them."""
    draw = random.Random(seed)
    items = [
        {"sku": f"{n:03}", "name": f"Thing {n}", "price": f"{n},50 €", "photo": f"pictures/{n}.jpg"}
        for n in range(30)
    ]
    rows = [
        {
            "customer": f"u{draw.randrange(25):02}",
            "sku": f"{int(draw.triangular(0, 30, 0)):03}",
            "date": f"{draw.randrange(1, 29):02}/{draw.randrange(1, 13):02}/2021",
            "stars": draw.choice(["1", "2,5", "4", "5"]),
            "review": draw.choice(["fine", "", "bad"]),
        }
        for _ in range(num)
    ]
    return items, rows


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "pictures").mkdir(parents=True)
    for n in range(0, 30, 3):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(folder / "pictures" / f"{n}.jpg")
    items, rows = shop_rows()
    write_table(folder / "items.csv", items)
    write_table(folder / "interactions.csv", rows)
    return folder


def imported(path: Path, output: Path | None = None, **settings: Any) -> Imported:
    target = output or path.parent / "imported"
    return run_import(ImportConfig(str(path), **settings), target)


def files_number(path: str) -> int:
    """The same for hard links of one file; 0 where there is no file."""
    return Path(path).stat().st_ino if Path(path).exists() else 0


def content(catalog: Catalog) -> dict[str, Any]:
    """What a catalog holds, whatever its files are."""
    columns = {name: catalog.items[name][:] for name in ("item_id", "title", "text", "category")}
    interactions = catalog.interactions
    images = [path and files_number(path) for path in catalog.items["image"][:]]
    return columns | {
        "prices": catalog.items["price"][:],
        "images": images,
        "users": catalog.user_ids.tolist(),
        "histories": histories(catalog),
        "times": interactions.times.tolist(),
        "dated": catalog.has_timestamps,
        "ratings": None if interactions.ratings is None else interactions.ratings.tolist(),
        "reviews": None if interactions.reviews is None else list(interactions.reviews),
    }


def assert_accounted(result: Imported) -> None:
    for table in ("interactions", "items"):
        counts = result.counts[table]
        assert counts["read"] == counts["written"] + sum(counts["dropped"].values())


@pytest.mark.parametrize("settings", [{}, {"min_rating": 2.5}], ids=str)
def test_an_imported_shop_is_the_shop(shop: Path, settings: dict[str, Any]) -> None:
    result = imported(shop, **settings)
    assert_accounted(result)
    direct = content(load_catalog(CatalogConfig(str(shop), **settings)))
    assert content(load_catalog(CatalogConfig(str(result.folder)))) == direct
    assert direct["prices"][3] == 3.5


def test_imported_films_are_the_films(tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    (folder / "posters").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "posters" / "2.jpg")
    names = ['"Amis" (les)', "Café", "Noir"]
    films = [f"{n + 1}|{name}|1995||x|{'|'.join('010' + '0' * 16)}" for n, name in enumerate(names)]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    (folder / "u.data").write_text("9\t2\t5\t20\n9\t1\t1\t10\n8\t3\t3\t5\n9\t3\t2\t10\n")
    result = imported(folder, source="movielens")
    direct = content(load_catalog(CatalogConfig(str(folder), source="movielens")))
    assert content(load_catalog(CatalogConfig(str(result.folder)))) == direct
    assert direct["histories"] == {"9": ["1", "3", "2"], "8": ["3"]}


@pytest.mark.parametrize("time", ["position", "ts", ""])
def test_order_without_dates_is_kept(tmp_path: Path, time: str) -> None:
    rows = [("b", "x"), ("a", "y"), ("b", "y"), ("b", "z"), ("a", "x")]
    when = [3, 1, 2, 2, 5]
    table = [
        {"user": user, "item": item} | ({time: moment} if time else {})
        for (user, item), moment in zip(rows, when, strict=True)
    ]
    (tmp_path / "shop").mkdir()
    write_table(tmp_path / "shop" / "items.jsonl", [{"item": item} for item in "xyz"])
    write_table(tmp_path / "shop" / "interactions.jsonl", table)
    result = imported(tmp_path / "shop")
    direct = content(load_catalog(CatalogConfig(str(tmp_path / "shop"))))
    assert content(load_catalog(CatalogConfig(str(result.folder)))) == direct


def test_a_split_in_several_files_is_kept(shop: Path) -> None:
    _, rows = shop_rows()
    (shop / "interactions.csv").unlink()
    write_table(shop / "interactions.train.csv", rows[:300])
    write_table(shop / "interactions.test.csv", rows[300:])
    result = imported(shop)
    direct = load_catalog(CatalogConfig(str(shop)))
    found = load_catalog(CatalogConfig(str(result.folder)))
    assert content(found)["histories"] == content(direct)["histories"]
    labels = [one.interactions.split_labels for one in (direct, found)]
    assert labels[0] is not None
    assert labels[0].equals(labels[1])


def k_core(pairs: list[tuple[str, str]], users: int, items: int) -> set[str]:
    """The users of the core, by removing rows until nothing changes."""
    while True:
        of_user, of_item = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        left = [(u, i) for u, i in pairs if of_user[u] >= users and of_item[i] >= items]
        if len(left) == len(pairs):
            return {f"{u} {i}" for u, i in left}
        pairs = left


def test_the_core_is_the_one_that_removing_row_by_row_leaves(shop: Path) -> None:
    result = imported(shop, min_user_interactions=11, min_item_interactions=12)
    assert_accounted(result)
    _, rows = shop_rows()
    pairs = [(row["customer"], row["sku"]) for row in rows]
    expected = k_core(pairs, 11, 12)
    assert 0 < len(expected) < len(k_core(pairs, 11, 0))
    table = parquet.read_table(result.folder / "interactions.parquet")
    found = {
        f"{u} {i}"
        for u, i in zip(*(table[c].to_pylist() for c in table.column_names[:2]), strict=True)
    }
    assert found == expected
    items = parquet.read_table(result.folder / "items.parquet")["item_id"].to_pylist()
    assert set(items) == {pair.split()[1] for pair in found}


def test_each_filter_drops_its_own_rows(shop: Path) -> None:
    with (shop / "interactions.csv").open("a") as file:
        file.write(",001,01/02/2021,4,\nu01,,01/02/2021,4,\nu01,999,01/02/2021,4,\n")
        file.write("u01,001,01/02/2021,none,\n")
    how: dict[str, Any] = {"since": "2021-03-01", "until": "2021-11-01", "drop_repeats": True}
    result = imported(shop, unknown_items="drop", min_rating=2.5, sample_users=0.8, **how)
    assert_accounted(result)
    dropped = result.counts["interactions"]["dropped"]
    assert [dropped[f"no {what}"] for what in ("user_id", "item_id", "rating")] == [1, 1, 1]
    assert dropped["an item that the items lack"] == 1
    _, rows = shop_rows()
    good = [row for row in rows if row["stars"] != "1"]
    assert dropped["rated below 2.5"] == len(rows) - len(good)
    assert dropped["before 2021-03-01"] == sum(row["date"][3:5] < "03" for row in good)
    assert dropped["on or after 2021-11-01"] == sum(row["date"][3:5] >= "11" for row in good)
    assert dropped["a user outside the sample"] > 0
    table = parquet.read_table(result.folder / "interactions.parquet")
    pairs = list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    assert len(pairs) == len(set(pairs)) == result.counts["interactions"]["written"]
    assert "interactions read" in format_counts(result)


def test_a_sample_of_users_is_stable_and_nested(shop: Path, tmp_path: Path) -> None:
    def users(wanted: float, seed: int = 0) -> set[str]:
        output = tmp_path / f"{wanted}-{seed}"
        result = imported(shop, output, sample_users=wanted, seed=seed)
        assert_accounted(result)
        return set(parquet.read_table(output / "interactions.parquet")["user_id"].to_pylist())

    ten = users(10)
    assert len(ten) == 10
    assert users(5) < ten
    assert users(10, seed=1) != ten


def test_a_single_date_decides_for_all_batches(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 200)
    (tmp_path / "shop").mkdir()
    days = ["03/04/2021 10:00"] * 40 + ["25/04/2021 11:30"] + ["05/04/2021"] * 40
    rows = [{"user": f"u{n % 2}", "item": "x", "date": day} for n, day in enumerate(days)]
    write_table(tmp_path / "shop" / "items.csv", [{"item": "x"}])
    write_table(tmp_path / "shop" / "interactions.csv", rows)
    result = imported(tmp_path / "shop")
    direct = content(load_catalog(CatalogConfig(str(tmp_path / "shop"))))
    assert content(load_catalog(CatalogConfig(str(result.folder)))) == direct


def test_embedded_pictures_become_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    pictures = [Image.new("RGB", (3, 3), (n * 40, 0, 0)) for n in range(3)]
    features = datasets.Features({"item_id": datasets.Value("string"), "image": datasets.Image()})
    items = datasets.Dataset.from_dict(
        {"item_id": ["x", "y", "z"], "image": [pictures[0], None, pictures[2]]}, features=features
    )
    rows = {"user_id": ["u", "u"], "item_id": ["z", "x"], "timestamp": [2, 1]}
    both: Any = {"items": items, "interactions": datasets.Dataset.from_dict(rows)}
    datasets.DatasetDict(both).save_to_disk(str(folder))
    result = imported(folder, source="huggingface")
    catalog = load_catalog(CatalogConfig(str(result.folder)))
    images = [catalog.item_image(n, 3) for n in range(3)]
    red = [None if image is None else int(image[0, 0, 0]) for image in images]
    assert red == [0, None, 80]


def test_a_picture_outside_the_source_is_refused(shop: Path) -> None:
    (shop.parent / "secret.jpg").write_bytes((shop / "pictures" / "0.jpg").read_bytes())
    write_table(shop / "items.csv", [{"sku": "000", "photo": "../secret.jpg"}])
    with pytest.raises(VitrineError, match="lies outside"):
        imported(shop, unknown_items="drop")
    assert not (shop.parent / "imported").exists()


def test_links_features_and_other_media_come_along(shop: Path) -> None:
    write_table(shop / "edges.csv", [{"a": "000", "b": "001"}, {"a": "001", "b": "029"}])
    (shop / "clip.npy").write_bytes(b"vectors")
    (shop / "clip.ids.txt").write_text("000\n")
    result = imported(shop, min_item_interactions=5)
    direct = load_catalog(CatalogConfig(str(shop))).edges
    found = load_catalog(CatalogConfig(str(result.folder))).edges
    assert direct is not None
    assert found is not None
    assert (len(direct), len(found)) == (2, 1)
    assert (result.folder / "clip.npy").read_bytes() == b"vectors"
    assert (result.folder / "clip.ids.txt").exists()
    assert check_catalog(CatalogConfig(str(result.folder))).facts["items with an image"]


def test_the_same_command_is_done_and_another_is_refused(shop: Path) -> None:
    first = imported(shop)
    before = {path: path.stat().st_mtime_ns for path in list_files(first.folder)}
    again = imported(shop)
    assert first.is_new
    assert not again.is_new
    assert again.counts == first.counts
    assert again.notes.listed == first.notes.listed
    with pytest.raises(VitrineError, match="other settings; choose another output"):
        imported(shop, min_rating=2)
    with (shop / "interactions.csv").open("a") as file:
        file.write("u01,001,01/02/2021,4,\n")
    with pytest.raises(VitrineError, match="another source or state"):
        imported(shop)
    assert {path: path.stat().st_mtime_ns for path in list_files(first.folder)} == before


def test_files_of_others_are_never_replaced(shop: Path) -> None:
    with pytest.raises(VitrineError, match="holds files that no import wrote"):
        imported(shop, shop)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"source": "foldr"}, "'foldr' is unknown. Did you mean 'folder'"),
        ({"since": "soon"}, "since is 'soon', which is no date"),
        ({"since": "2021-05-01", "until": "2021-04-01"}, "is not before until"),
        ({"sample_users": 1.5}, "a fraction below 1 or a whole number"),
        ({"min_rating": 9}, "no interaction is rated 9"),
        ({"since": "2031-01-01"}, r"no interaction is left.*before 2031"),
        ({"roles": {"time": None}, "since": "2021-01-01"}, "the interactions have no times"),
        ({"roles": {"rating": None}, "min_rating": 2}, "no rating column"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(shop: Path, settings: dict[str, Any], error: str) -> None:
    with pytest.raises(VitrineError, match=error) as raised:
        imported(shop, **settings)
    assert "\n" not in str(raised.value)
    assert not list(shop.parent.glob("*imported*"))


def test_unknown_items_are_refused_with_a_hint(shop: Path) -> None:
    text = (shop / "interactions.csv").read_text()
    (shop / "interactions.csv").write_text(text.replace(",007,", ",07,").replace(",009,", ",09,"))
    with pytest.raises(VitrineError, match=r"name 2 items the items table lacks .*leading zeros"):
        imported(shop)


def test_a_full_disk_is_no_other_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run("SET max_temp_directory_size = '1MB'")
    store.run("SET memory_limit = '40MB'")
    with pytest.raises(OSError, match="No space left"):
        for _ in store.batches(
            "SELECT hash(i) AS h, i::VARCHAR || 'x' FROM range(9000000) t(i) ORDER BY 1"
        ):
            pass
    with pytest.raises(VitrineError, match="cannot be sorted"):
        store.run("SELECT nothing FROM nowhere")
    store.close()


def test_notes_and_settings_are_in_the_folder(shop: Path) -> None:
    result = imported(shop, dates="day-first", min_rating=1)
    written = read_yaml(result.folder / "catalog.yaml")["imported"]
    assert written["settings"] == {"dates": "day-first", "min_rating": 1}
    assert written["source"] == "folder"
    assert written["counts"] == result.counts
    whats = [note["what"] for note in written["notes"]]
    assert any("pictures are missing" in what for what in whats)
    assert len(whats) == len(result.notes.listed)


def test_pictures_are_not_stored_twice(shop: Path) -> None:
    result = imported(shop)
    linked = result.folder / "images" / "pictures" / "3.jpg"
    assert os.path.samefile(linked, shop / "pictures" / "3.jpg")


def test_import_settings_are_those_of_reading_and_more() -> None:
    names = {field.name for field in dataclasses.fields(ImportConfig)}
    assert {field.name for field in dataclasses.fields(CatalogConfig)} < names


def test_rows_are_sorted_by_user_and_time(shop: Path) -> None:
    table = parquet.read_table(imported(shop).folder / "interactions.parquet")
    assert table.schema.field("time").type == pa.timestamp("us")
    seen = [tuple(row.values()) for row in table.select(["user_id", "time"]).to_pylist()]
    users = list(dict.fromkeys(user for user, _ in seen))
    assert seen == sorted(seen, key=lambda row: (users.index(row[0]), row[1]))


def test_notes_of_batches_add_up_also_where_batches_have_as_many() -> None:
    counted, notes = CountedNotes(), Notes()
    for example in ("a", "b"):
        counted.add("items: x", "2 texts are odd", count=2, examples=[example])
    for _ in range(2):
        counted.add("items: y", "4 pictures are missing", count=4, examples=["p"])
        counted.add("items: t", "is in seconds since 1970")
    counted.add_to(notes)
    assert [str(note) for note in notes.listed] == [
        "items: x: 4 texts are odd ('a', 'b')",
        "items: y: 8 pictures are missing ('p')",
        "items: t: is in seconds since 1970",
    ]
    assert [note.count for note in notes.listed] == [4, 8, 0]
