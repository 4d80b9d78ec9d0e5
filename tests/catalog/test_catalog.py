"""Loading a catalog: ids, order, words, roles, and the line each mistake gets."""

import numpy as np
import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean

HISTORIES = {"a": ["007", "7", "010"], "b": ["7", "010"]}

ITEMS = [{"item_id": "x", "title": "X"}, {"item_id": "y", "title": "Y"}]


def bought(*rows, **more):
    """Interactions of (user, item, time)."""
    return [{"user_id": u, "item_id": i, "timestamp": t, **more} for u, i, t in rows]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv", "tsv"])
def test_histories_are_ordered_by_time_and_ids_keep_their_leading_zeros(world, histories, suffix):
    catalog = world(suffix=suffix)
    assert histories(catalog) == HISTORIES
    assert catalog.items["item_id"][:] == ["007", "010", "011", "7"]
    assert (catalog.num_items, catalog.num_users, len(catalog.interactions)) == (4, 2, 5)


def test_alignment_is_by_id_and_not_by_position(world, histories):
    items = [{"item_id": i, "title": i} for i in ("007", "010", "011", "7")]
    before = histories(world(items))
    after = world(items[::-1])
    assert histories(after) == before == HISTORIES
    assert after.items["item_id"][:] == ["7", "011", "010", "007"]


def test_numbers_serve_as_ids_in_their_text_form(world, histories):
    catalog = world([{"item_id": 17, "title": "X"}], bought((3, 17, 1)), suffix="parquet")
    assert histories(catalog) == {"3": ["17"]}
    assert catalog.item_index(17) == catalog.item_index("17") == 0


def test_whole_numbers_with_a_decimal_point_are_ids_without_it(world, histories):
    # pandas turns a column of whole numbers into floats where one was missing.
    catalog = world([{"item_id": 10**15}], bought(("u", 1e15, 1)), suffix="parquet")
    assert histories(catalog) == {"u": ["1000000000000000"]}


def test_arrays_have_the_promised_types_and_stay_on_disk(world):
    catalog = world()
    interactions = catalog.interactions
    assert interactions.offsets.dtype == np.int64
    assert interactions.items.dtype == np.int32
    assert interactions.times.dtype == np.int64
    assert interactions.times.tolist() == [5, 30, 10, 20, 40]
    assert interactions.offsets.tolist() == [0, 2, 5]
    assert all(isinstance(a, np.memmap) for a in (interactions.items, interactions.times))


def test_an_item_text_is_the_title_then_the_text(world):
    catalog = world()
    assert catalog.item_text(0) == "Red mug. A mug, red."
    assert catalog.item_text(1) == "Blue mug"
    assert catalog.item_text(2) is None
    assert catalog.items[2] | {"price": 0} == {
        "item_id": "011",
        "title": None,
        "text": None,
        "category": "plates",
        "image": None,
        "price": 0,
    }


def test_several_text_columns_are_joined_and_missing_ones_skipped(world):
    items = [
        {"item_id": "x", "name": "X", "colour": "red", "desc": "old", "tags": ["a", "b"]},
        {"item_id": "y", "name": None, "colour": None, "desc": "new", "tags": []},
        {"item_id": "z", "name": None, "colour": None, "desc": None, "tags": None},
    ]
    roles = {"text": ["colour", "tags", "desc"]}
    catalog = world(items, bought(("u", "x", 1)), roles=roles)
    assert [catalog.item_text(i) for i in range(3)] == ["X. red. a, b. old", "new", None]


def test_without_a_description_the_category_is_the_text(world):
    items = [{"item_id": "x", "title": "X", "categories": ["mugs", "cups"]}]
    catalog = world(items, bought(("u", "x", 1)))
    assert catalog.item_text(0) == "X. mugs, cups"
    assert catalog.items[0]["category"] == "mugs"


def test_what_is_too_long_for_a_title_comes_after_the_text(world):
    """No tower reads for ever: a seller who writes on in the title would hide what the item is."""
    title = "A mug " + "that everybody wants " * 4
    catalog = world(
        [{"item_id": "x", "title": title, "description": "Red."}, ITEMS[1]], bought(("u", "x", 1))
    )
    assert catalog.item_text(0) == (
        "A mug that everybody wants that everybody wants that everybody wants that. Red. "
        "everybody wants"
    )
    assert catalog.texts()(0) == catalog.item_text(0)


def test_prices_are_numbers(world):
    items = [{"item_id": "x", "price": "1.5"}, {"item_id": "y", "price": ""}]
    assert world(items, bought(("u", "x", 1)), suffix="csv").items["price"][:] == [1.5, None]


def test_a_missing_folder_is_named_with_its_nearest_sibling(world, tmp_path):
    world()
    with pytest.raises(VitrineError, match=r"shopp does not exist.*Did you mean 'shop'"):
        load_catalog(CatalogConfig(str(tmp_path / "shopp")))


def test_an_empty_path_and_a_file_are_no_catalog(world):
    with pytest.raises(VitrineError, match=r"catalog\.path is empty"):
        load_catalog(CatalogConfig())
    world()
    with pytest.raises(VitrineError, match=r"is a file"):
        load_catalog(CatalogConfig(str(world.folder / "items.jsonl")))


def test_an_unknown_source_is_refused(world):
    with pytest.raises(VitrineError, match=r"'folders' is unknown.*Did you mean 'folder'"):
        world(source="folders")


@pytest.mark.parametrize("stem", ["items", "interactions"])
def test_a_missing_table_is_named(world, stem):
    world()
    (world.folder / f"{stem}.jsonl").unlink()
    with pytest.raises(VitrineError, match=rf"holds no {stem} file; expected {stem}\.parquet"):
        load_catalog(CatalogConfig(str(world.folder)))


def test_two_tables_of_one_name_are_refused(world):
    world()
    (world.folder / "items.csv").write_text("item_id\nx\n")
    with pytest.raises(VitrineError, match=r"holds items\.jsonl and items\.csv; keep one"):
        load_catalog(CatalogConfig(str(world.folder)))


@pytest.mark.parametrize("text", ["", "user_id,item_id\n"])
def test_empty_interactions_are_refused(world, text):
    world(suffix="csv")
    (world.folder / "interactions.csv").write_text(text)
    with pytest.raises(VitrineError, match=r"is empty|has no interactions"):
        load_catalog(CatalogConfig(str(world.folder)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.csv", b"\x89PNG\x00\x01\x02\x03\x00\x01\x02\x03"),
        ("items.csv", b"\x1f\x8b\x08 not really"),
        ("items.jsonl", b'{"item_id": "x"\n'),
        ("items.parquet", b"PAR1 not really"),
    ],
)
def test_an_unreadable_table_is_named(world, name, content):
    world()
    (world.folder / "items.jsonl").unlink()
    (world.folder / name).write_bytes(content)
    with pytest.raises(VitrineError, match=rf"{name} cannot be read: ") as error:
        load_catalog(CatalogConfig(str(world.folder)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("role", ["title", "category", "image", "price", "text"])
def test_a_column_without_text_form_is_left_out_and_named(world, role):
    items = [{"item_id": "x", "colour": "red", role: {"en": "X"}}]
    catalog = world(items, bought(("u", "x", 1)))
    note = catalog.notes[-1]  # without a text, the category is tried as one
    assert "holds struct" in note.what
    assert f"is left out as {role}" in note.what
    assert catalog.items[0][role] is None
    assert catalog.columns[role].to_pylist() == [{"en": "X"}]


def test_repeated_item_ids_are_refused(world):
    items = [{"item_id": i} for i in "xyxzz"]
    with pytest.raises(VitrineError, match=r"2 ids more than once \(x, z\)"):
        world(items, bought(("u", "x", 1)))


def test_unknown_items_are_counted_and_named(world):
    rows = bought(("u", "x", 1), *(("u", i, 2) for i in "pqrsp"))
    with pytest.raises(
        VitrineError, match=r"5 of 6 interactions name 4 items .*\(p, q, r\).*unknown_items: drop"
    ):
        world(ITEMS, rows)


def test_unknown_items_can_be_dropped(world, histories):
    rows = bought(("u", "x", 1), ("v", "q", 2), ("u", "y", 3))
    catalog = world(ITEMS, rows, unknown_items="drop")
    assert histories(catalog) == {"u": ["x", "y"]}
    assert catalog.num_dropped == 1


def test_dropping_everything_is_a_mistake(world):
    with pytest.raises(VitrineError, match=r"no interaction of shop names a known item"):
        world(ITEMS, bought(("u", "q", 1)), unknown_items="drop")


def test_missing_and_textual_times_are_refused(world):
    with pytest.raises(VitrineError, match=r"timestamp lacks 1 times"):
        world(ITEMS, bought(("u", "x", 1), ("u", "y", None)))
    with pytest.raises(VitrineError, match=r"timestamp .*'soon'.*neither numbers nor dates"):
        world(ITEMS, bought(("u", "x", "soon")))


def test_ratings_that_are_no_numbers_block_only_if_they_are_needed(world):
    rows = bought(("u", "x", 1), rating="good")
    catalog = world(ITEMS, rows)
    assert catalog.interactions.ratings is None
    assert "rating" not in catalog.roles["interactions"]
    assert "column rating is not numeric" in str(catalog.notes[0])
    with pytest.raises(VitrineError, match=r"column rating is not numeric"):
        world(ITEMS, rows, min_rating=1)


def test_rows_without_a_readable_rating_are_counted_where_ratings_are_needed(world, histories):
    rows = [
        *bought(("u", "x", 1), rating="4,5"),
        *bought(("u", "y", 2), rating="?"),
        *bought(("v", "y", 3), rating="1,0"),
    ]
    catalog = world(ITEMS, rows, min_rating=2)
    assert histories(catalog) == {"u": ["x"]}
    assert [note.count for note in catalog.notes if note.kind == "dropped"] == [1]


def test_no_markup_of_any_column_is_left(world):
    items = [{"item_id": "x", "title": "<b>X</b>", "care": ["wash &amp; dry"], "image": "a&b.jpg"}]
    rows = bought(("u", "x", 1), review="<p>So&nbsp;good</p>")
    catalog = world(items, rows)
    assert catalog.item_text(0) == "X"
    assert catalog.columns["title"].to_pylist() == ["X"]
    assert catalog.columns["care"].to_pylist() == [["wash & dry"]]
    assert catalog.interactions.reviews is not None
    assert catalog.interactions.reviews[0] == "So good"


def test_unknown_ids_are_refused_with_the_nearest_ids(world):
    catalog = world()
    assert catalog.user_index("b") == 0
    assert catalog.item_index("7") == 3
    with pytest.raises(VitrineError, match=r"no item '0100'.*'010'"):
        catalog.item_index("0100")
    with pytest.raises(VitrineError, match=r"no user 'zz'.*Known: b, a"):
        catalog.user_index("zz")


def test_nearest_stays_silent_where_nothing_is_near():
    assert did_you_mean("zz", [f"name {n}" for n in range(50)]) == ""
