"""Ids keep what they name: rounded ones are refused, missing ones are counted, both tables join."""

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError

ITEMS = [{"item_id": "x", "title": "X"}, {"item_id": "y", "title": "Y"}]


def bought(*rows):
    """Interactions of (user, item), in order of time."""
    return [{"user_id": u, "item_id": i, "timestamp": t} for t, (u, i) in enumerate(rows)]


def said(catalog) -> str:
    return " | ".join(map(str, catalog.notes))


def test_a_catalog_in_which_nothing_was_uncertain_has_no_notes(world):
    assert world(suffix="csv").notes == []


def test_large_floats_are_refused_as_ids(world):
    with pytest.raises(VitrineError, match=r"user_id of interactions.*76561197960265728.*as text"):
        world(ITEMS, bought((76561197960265728.0, "x"), (1.0, "y")), suffix="parquet")
    with pytest.raises(VitrineError, match=r"item_id of items holds the id 9007199254740992"):
        world([{"item_id": 2.0**53}], bought(("u", "x")), suffix="parquet")


@pytest.mark.parametrize("text", ["7.65612E+16", "7,65612E+16", "8E+16"])
def test_ids_that_a_spreadsheet_rounded_are_refused(world, text):
    with pytest.raises(VitrineError, match=r"E\+16, which a spreadsheet rounded.*as text"):
        world(ITEMS, bought(("u", "x"), (text, "x")))


def test_codes_with_an_e_are_ids(world, histories):
    catalog = world([{"item_id": "1E10"}], bought(("5e3", "1E10")))
    assert histories(catalog) == {"5e3": ["1E10"]}


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("missing", [None, "", "nan", "NaN", "None", " "])
def test_interactions_without_an_id_are_dropped_and_counted(world, histories, column, missing):
    rows = bought(("u", "x"), ("v", "y"), ("u", "y"))
    rows[1][column] = missing
    catalog = world(ITEMS, rows)
    assert histories(catalog) == {"u": ["x", "y"]}
    (note,) = catalog.notes
    assert (note.kind, note.count) == ("dropped", 1)
    assert f"1 of 3 rows have no {column}" in note.what
    assert "row 2" in note.what


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_table_without_any_id_is_refused(world, column):
    rows = [{**row, column: ""} for row in bought(("u", "x"), ("v", "y"))]
    with pytest.raises(VitrineError, match=rf"no row of interactions has any {column}.*roles"):
        world(ITEMS, rows)
    with pytest.raises(VitrineError, match=r"no row of items has any item_id"):
        world([{"item_id": "", "title": "X"}], bought(("u", "x")))


def test_items_without_an_id_are_dropped_and_all_columns_stay_aligned(world, histories):
    items = [
        {"item_id": None, "title": "none", "colour": "grey"},
        {"item_id": "x", "title": "X", "colour": "red"},
        {"item_id": "y", "title": "Y", "colour": "blue"},
    ]
    catalog = world(items, bought(("u", "y")))
    assert catalog.items["title"][:] == ["X", "Y"]
    assert catalog.columns["colour"].to_pylist() == ["red", "blue"]
    assert histories(catalog) == {"u": ["y"]}
    assert [note.kind for note in catalog.notes] == ["dropped"]


def test_floats_with_missing_values_are_whole_ids(world, histories):
    rows = bought((1.0, 10.0), (None, 11.0), (2.0, 11.0))
    catalog = world([{"item_id": 10}, {"item_id": 11}], rows, suffix="parquet")
    assert histories(catalog) == {"1": ["10"], "2": ["11"]}


@pytest.mark.parametrize(
    ("items", "rows"), [(("7", "8"), ("7.0", "8.0")), (("7.0", "8.0"), (7, 8))]
)
def test_ids_that_match_only_without_a_decimal_point_are_joined_and_said(
    world, histories, items, rows
):
    catalog = world([{"item_id": i} for i in items], bought(*(("u", i) for i in rows)))
    assert histories(catalog) == {"u": ["7", "8"]}
    assert "end in .0" in said(catalog)


def test_blanks_at_the_ends_of_ids_are_removed_and_said_where_ids_merge(world, histories):
    catalog = world(ITEMS, bought((" u", "x "), ("v ", "y")))
    assert histories(catalog) == {"u": ["x"], "v": ["y"]}
    assert catalog.notes == []
    catalog = world(ITEMS, bought(("u ", "x"), ("u", "y")))
    assert histories(catalog) == {"u": ["x", "y"]}
    assert "1 ids are the same as another" in said(catalog)


@pytest.mark.parametrize(
    ("items", "rows", "hint"),
    [
        (("007", "008"), ("7", "8"), r"100% of them would match without leading zeros"),
        (("7", "8"), ("007", "9"), r"50% of them would match without leading zeros"),
        (("a1", "a2"), ("A1", "A2"), r"100% of them would match without regard to upper and lower"),
    ],
)
@pytest.mark.parametrize("unknown", ["error", "drop"])
def test_the_refusal_says_how_ids_would_match(world, items, rows, hint, unknown):
    with pytest.raises(VitrineError, match=hint + r".*write ids alike"):
        world(
            [{"item_id": i} for i in items],
            bought(*(("u", i) for i in rows)),
            unknown_items=unknown,
        )


def test_edges_without_an_id_are_dropped_and_counted(world):
    world(suffix="csv")
    (world.folder / "edges.csv").write_text("a,b\n007,010\n,7\n7,nan\n")
    catalog = load_catalog(CatalogConfig(str(world.folder)))
    assert catalog.edges is not None
    assert catalog.edges.tolist() == [[0, 1]]
    assert [note.kind for note in catalog.notes] == ["dropped", "dropped"]
