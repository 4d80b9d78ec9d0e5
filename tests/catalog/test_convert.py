"""Conversion of raw tables: times, ratings, reviews, and the roles of columns."""

from datetime import date, datetime

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError

HISTORIES = {"a": ["007", "7", "010"], "b": ["7", "010"]}

ITEMS = [{"item_id": "x", "title": "X"}, {"item_id": "y", "title": "Y"}]


def bought(*rows, **more):
    """Interactions of (user, item, time)."""
    return [{"user_id": u, "item_id": i, "timestamp": t, **more} for u, i, t in rows]


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


def test_positions_and_files_sorted_by_user_are_no_timestamps(world):
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
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 64)
    rows = [
        {**row, "review": "one\ntwo\nthree"} for row in bought(*(("u", "x", n) for n in range(40)))
    ]
    texts = world(ITEMS, rows, suffix="csv").interactions.reviews
    assert texts is not None
    assert list(texts) == ["one\ntwo\nthree"] * 40


def test_texts_such_as_NA_are_texts(world):
    catalog = world([{"item_id": "NA", "title": "null"}], bought(("NULL", "NA", 1)), suffix="csv")
    assert catalog.items[0]["item_id"] == "NA"
    assert catalog.items[0]["title"] == "null"
    assert catalog.user_ids.tolist() == ["NULL"]


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
