"""Loading a catalog: ids, order, words, roles, and the line each mistake gets."""

import json
import random
import shutil
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from catalog.cache import cache_folder
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


def test_words_are_the_title_then_the_text(world):
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


# Order in time


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["2020-09-21", "2020-09-20"], 1600646400),
        (["2020-09-21 00:00:00", "2020-09-20 12:00:00"], 1600646400),
        (["2020-09-21T02:00:00+02:00", "2020-09-20T12:00:00Z"], 1600646400),
        (["09/21/2020", "09/20/2020"], 1600646400),
        (["1600646400", "99"], 1600646400),
        ([1600646400, 99], 1600646400),
        ([1600646400.0, 99.0], 1600646400),
        ([2.5, 1.0], 2500000),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "tsv"])
def test_dates_and_numbers_are_both_times(world, histories, times, expected, suffix):
    rows = bought(("u", "x", times[0]), ("u", "y", times[1]))
    catalog = world(ITEMS, rows, suffix=suffix)
    assert histories(catalog) == {"u": ["y", "x"]}
    assert catalog.interactions.times[1] == expected


@pytest.mark.parametrize(
    ("late", "early", "expected"),
    [
        (date(2020, 9, 21), date(2020, 9, 20), 1600646400),
        (datetime(2020, 9, 21), datetime(2020, 9, 20, 23), 1600646400),
        (datetime(2020, 9, 21, 0, 0, 0, 500000), datetime(2020, 9, 21), 1600646400500000),
    ],
)
def test_date_columns_become_seconds_unless_that_would_lose_order(
    world, histories, late, early, expected
):
    rows = bought(("u", "x", late), ("u", "y", early))
    catalog = world(ITEMS, rows, suffix="parquet")
    assert histories(catalog) == {"u": ["y", "x"]}
    assert catalog.interactions.times[1] == expected


def test_without_times_the_files_order_counts(world, histories):
    rows = [{"user_id": u, "item_id": i} for u, i in ("uy", "vx", "ux")]
    catalog = world(ITEMS, rows)
    assert histories(catalog) == {"u": ["y", "x"], "v": ["x"]}
    assert catalog.has_timestamps


def test_positions_and_files_sorted_by_person_are_no_moments(world):
    rows = [
        {"user_id": u, "item_id": i, "position": p} for u, i, p in (("u", "y", 1), ("v", "x", 0))
    ]
    assert not world(ITEMS, rows).has_timestamps
    grouped = [{"user_id": u, "item_id": i} for u, i in ("uy", "ux", "vx")]
    assert not world(ITEMS, grouped).has_timestamps


def test_ties_keep_the_files_order(world, histories):
    rows = bought(*(("u", i, 1) for i in "yxyx"))
    assert histories(world(ITEMS, rows)) == {"u": ["y", "x", "y", "x"]}


def test_shuffled_ties_do_not_depend_on_the_files_order(world, histories):
    items = [{"item_id": f"i{n}", "title": "t"} for n in range(20)]
    rows = bought(*(("u", f"i{n}", 1) for n in range(20)), *(("v", f"i{n}", 1) for n in range(20)))
    first = histories(world(items, rows, ties="shuffle"))
    again = histories(world(items[::-1], rows[::-1], ties="shuffle"))
    assert first == again
    assert first["u"] != first["v"]
    assert first["u"] not in ([f"i{n}" for n in range(20)], [f"i{n}" for n in range(19, -1, -1)])
    assert sorted(first["u"]) == sorted(f"i{n}" for n in range(20))


def test_shuffling_ties_leaves_different_times_in_order(world, histories):
    assert histories(world(ties="shuffle")) == HISTORIES


# Ratings and reviews


def test_low_ratings_are_left_out_and_the_others_stay_with_their_rows(world, histories):
    rows = bought(("u", "x", 3), ("u", "y", 2), ("u", "x", 1))
    rows = [{**row, "rating": rating} for rating, row in enumerate(rows)]
    catalog = world(ITEMS, rows, min_rating=1)
    assert histories(catalog) == {"u": ["x", "y"]}
    assert catalog.interactions.ratings is not None
    assert catalog.interactions.ratings.tolist() == [2, 1]


def test_min_rating_needs_ratings(world):
    with pytest.raises(VitrineError, match=r"min_rating is 4.*no rating column.*roles"):
        world(min_rating=4)


def test_min_rating_that_leaves_nothing_names_the_best(world):
    with pytest.raises(VitrineError, match=r"rated 9 or better; the best is 3"):
        world(ITEMS, bought(("u", "x", 1), rating=3), min_rating=9)


def test_reviews_stay_with_their_interactions(world):
    rows = [
        {"user_id": "u", "item_id": "x", "timestamp": 2, "review": "second"},
        {"user_id": "v", "item_id": "x", "timestamp": 9, "review": None},
        {"user_id": "u", "item_id": "y", "timestamp": 1, "review": "first"},
    ]
    texts = world(ITEMS, rows).interactions.reviews
    assert texts is not None
    assert [texts[row] for row in range(3)] == ["first", "second", None]


def test_a_quoted_review_may_hold_lines_and_commas(world):
    world.folder.mkdir()
    (world.folder / "items.csv").write_text("item_id\nx\n")
    text = 'user_id,item_id,review\nu,x,"good,\nreally ""good"""\n'
    (world.folder / "interactions.csv").write_text(text)
    catalog = load_catalog(CatalogConfig(str(world.folder)))
    assert catalog.interactions.reviews is not None
    assert catalog.interactions.reviews[0] == 'good,\nreally "good"'


def test_lines_inside_quotes_do_not_end_a_row_at_the_edge_of_a_block(world, monkeypatch):
    monkeypatch.setattr("catalog.sources.folder.BLOCK", 64)
    rows = [
        {**row, "review": "one\ntwo\nthree"} for row in bought(*(("u", "x", n) for n in range(40)))
    ]
    texts = world(ITEMS, rows, suffix="csv").interactions.reviews
    assert texts is not None
    assert list(texts) == ["one\ntwo\nthree"] * 40


def test_words_such_as_NA_are_words(world):
    catalog = world([{"item_id": "NA", "title": "null"}], bought(("nan", "NA", 1)), suffix="csv")
    assert catalog.items[0]["item_id"] == "NA"
    assert catalog.items[0]["title"] == "null"
    assert catalog.user_ids.tolist() == ["nan"]


# Roles

ODD_ITEMS = [{"sku": "x", "label": "X", "words": "long"}]
ODD_ROWS = [{"who": "u", "what": "x", "when": 1}]
ODD_ROLES = {"title": "label", "text": "words", "user_id": "who", "time": "when", "item_id": "what"}


def test_roles_in_the_config_name_odd_columns(world, histories):
    catalog = world(ODD_ITEMS, ODD_ROWS, roles=ODD_ROLES)
    assert histories(catalog) == {"u": ["x"]}
    assert catalog.item_text(0) == "X. long"
    assert catalog.roles["items"]["item_id"] == "sku"


def test_catalog_yaml_overrules_the_guess_and_the_config_overrules_both(world):
    world.folder.mkdir()
    items = [{"item_id": "x", "title": "guess", "label": "yaml", "brand": "config"}]
    rows = bought(("u", "x", 1))
    assert world(items, rows).item_text(0) == "guess"
    (world.folder / "catalog.yaml").write_text("roles: {title: label}")
    assert world(items, rows).item_text(0) == "yaml"
    assert world(items, rows, roles={"title": "brand"}).item_text(0) == "config"
    assert world(items, rows, roles={"title": None}).item_text(0) is None


def test_a_column_named_for_one_role_is_not_guessed_for_another(world):
    items = [{"item_id": "x", "description": "long words"}]
    catalog = world(items, bought(("u", "x", 1)), roles={"title": "description"})
    assert catalog.item_text(0) == "long words"


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"titel": "title"}, r"unknown role 'titel'.*Did you mean 'title'"),
        ({"title": "titel"}, r"roles.title names the column 'titel'.*those of items.*'title'"),
        ({"text": ["title", "descripton"]}, r"'descripton'.*Did you mean 'description'"),
        (
            {"time": "title"},
            r"roles.time names the column 'title', which is not among those of interactions",
        ),
        ({"title": ["title"]}, r"roles.title is \['title'\]; give one column's name"),
        ({"user_id": None}, r"interactions has no column that looks like user_id"),
    ],
)
def test_wrong_roles_are_refused_with_the_nearest_name(world, roles, message):
    with pytest.raises(VitrineError, match=message):
        world(roles=roles)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("role: {}", r"unknown key 'role'.*'roles'"),
        ("roles: [title]", r"roles must map"),
        ("- roles", r"must hold `roles:`"),
        ("roles: {title", r"catalog\.yaml, line 1: "),
        ("roles: {title: a}\nroles: {title: b}", r"catalog\.yaml, line 2: the key 'roles'"),
        ("roles: {titel: title}", r"unknown role 'titel'"),
    ],
)
def test_a_faulty_catalog_yaml_is_refused(world, text, message):
    world()
    (world.folder / "catalog.yaml").write_text(text)
    with pytest.raises(VitrineError, match=message):
        load_catalog(CatalogConfig(str(world.folder)))


# Mistakes


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
        ("items.csv", b"item_id,title\nx,\xff\xfe\n"),
        ("items.csv", b"item_id,title\nx,y,z\n"),
        ("items.jsonl", b'{"item_id": "x"\n'),
        ("items.jsonl", b'{"item_id": "x"}\n{"item_id": 3}\n'),
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


def test_a_column_without_text_form_is_named(world):
    items = [{"item_id": "x", "title": {"en": "X"}}]
    with pytest.raises(VitrineError, match=r"column title holds struct"):
        world(items, bought(("u", "x", 1)))


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


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_missing_ids_are_refused_with_their_row(world, column):
    rows = bought(("u", "x", 1), ("u", "y", 2))
    rows[1][column] = None
    with pytest.raises(VitrineError, match=rf"1 rows of interactions have no {column}.*row 2"):
        world(ITEMS, rows)


def test_missing_times_and_words_for_times_are_refused(world):
    with pytest.raises(VitrineError, match=r"timestamp lacks 1 times"):
        world(ITEMS, bought(("u", "x", 1), ("u", "y", None)))
    with pytest.raises(VitrineError, match=r"timestamp .*'soon'.*neither numbers nor dates"):
        world(ITEMS, bought(("u", "x", "soon")))


def test_ratings_that_are_no_numbers_are_refused(world):
    with pytest.raises(VitrineError, match=r"column rating is not numeric"):
        world(ITEMS, bought(("u", "x", 1), rating="good"))


def test_unknown_ids_come_with_the_nearest(world):
    catalog = world()
    assert catalog.user_index("b") == 0
    assert catalog.item_index("7") == 3
    with pytest.raises(VitrineError, match=r"no item '0100'.*'010'"):
        catalog.item_index("0100")
    with pytest.raises(VitrineError, match=r"no person 'zz'.*Known: b, a"):
        catalog.user_index("zz")


def test_nearest_stays_silent_where_nothing_is_near():
    assert did_you_mean("zz", [f"name {n}" for n in range(50)]) == ""


# The cache


def test_the_users_folder_is_never_written_to(world, cache):
    catalog = world()
    catalog.item_text(0)
    assert sorted(p.name for p in world.folder.iterdir()) == ["interactions.jsonl", "items.jsonl"]
    assert cache_folder() == cache
    (made,) = (cache / "catalogs").iterdir()
    assert not made.name.startswith(".")


def test_an_unchanged_catalog_is_not_converted_again(world, monkeypatch):
    before = world()
    monkeypatch.setattr("catalog.catalog.convert", None)
    assert world().fingerprint == before.fingerprint


def test_the_fingerprint_is_of_the_content_and_not_of_the_path(world, tmp_path):
    before = world()
    shutil.copytree(world.folder, tmp_path / "elsewhere")
    moved = load_catalog(CatalogConfig(str(tmp_path / "elsewhere")))
    assert moved.fingerprint == before.fingerprint
    assert moved.folder != before.folder


def test_the_fingerprint_changes_with_words_pictures_and_reading_rules(world):
    prints = {world().fingerprint, world(ties="shuffle").fingerprint}
    prints.add(world(roles={"title": None}).fingerprint)
    (world.folder / "a.jpg").write_bytes(b"1")
    prints.add(world().fingerprint)
    (world.folder / "a.jpg").write_bytes(b"12")
    prints.add(world().fingerprint)
    (world.folder / "catalog.yaml").write_text(json.dumps({"roles": {}}))
    prints.add(world().fingerprint)
    prints.add(world([{"item_id": i} for i in ("007", "010", "011", "7")]).fingerprint)
    assert len(prints) == 7


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_another_interaction_leaves_the_content_fingerprint_as_it_is(world, suffix):
    before = world(interactions=bought(("a", "7", 40)), suffix=suffix)
    after = world(interactions=bought(("a", "7", 40), ("c", "7", 50)), suffix=suffix)
    assert after.fingerprint != before.fingerprint
    assert after.content_fingerprint == before.content_fingerprint


def test_the_content_fingerprint_changes_with_items_media_and_roles(world):
    prints = {world().content_fingerprint, world(roles={"title": None}).content_fingerprint}
    (world.folder / "a.jpg").write_bytes(b"1")
    prints.add(world().content_fingerprint)
    (world.folder / "a.jpg").write_bytes(b"12")
    prints.add(world().content_fingerprint)
    prints.add(world([{"item_id": i} for i in ("007", "010", "011", "7")]).content_fingerprint)
    assert len(prints) == 5


def test_a_moved_catalog_finds_its_pictures(world, tmp_path):
    items = [{"item_id": "x", "image": "a.jpg"}]
    world(items, bought(("u", "x", 1)))
    shutil.move(world.folder, tmp_path / "moved")
    catalog = load_catalog(CatalogConfig(str(tmp_path / "moved")))
    assert Path(catalog.items[0]["image"]) == tmp_path / "moved" / "a.jpg"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("VITRINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vitrine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vitrine"


def test_a_converted_catalog_that_was_spoilt_is_noticed_and_made_anew(world, cache, capsys):
    expected = world().interactions.items.tolist()
    (made,) = (cache / "catalogs").iterdir()
    files = sorted(made.iterdir())
    dice = random.Random(0)
    for place in range(5 * len(files)):
        path = files[place % len(files)]
        content = bytearray(path.read_bytes())
        if place < len(files):
            content = content[: dice.randrange(len(content))]
        else:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(content))
        catalog = load_catalog(CatalogConfig(str(world.folder)))
        assert "is damaged" in capsys.readouterr().err, path.name
        assert catalog.interactions.items.tolist() == expected
        load_catalog(CatalogConfig(str(world.folder)))
        assert capsys.readouterr().err == ""
