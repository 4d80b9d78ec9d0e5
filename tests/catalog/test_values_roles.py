"""Columns get their roles by usual names, and by what joins."""

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.roles import resolve_roles


def rows(*pairs, item="item_id"):
    return [{"user_id": u, item: i, "timestamp": t} for t, (u, i) in enumerate(pairs)]


def said(catalog) -> str:
    return " | ".join(map(str, catalog.notes))


@pytest.mark.parametrize("place", [0, 1])
def test_of_two_columns_called_like_ids_the_one_that_joins_is_taken(world, histories, place):
    items = [{"ID": f"{n}00", "SKU": f"s{n}", "title": f"T{n}"} for n in range(4)]
    name = ("ID", "SKU")[place]
    catalog = world(items, rows(*(("u", item[name]) for item in items)))
    assert catalog.roles["items"]["item_id"] == name
    assert len(histories(catalog)["u"]) == 4
    assert ("items: ID: is taken" in said(catalog)) == (place == 0)  # sku comes before id


def test_a_row_number_called_id_is_no_item_id_where_another_column_joins(world, histories):
    items = [{"id": n, "artikelnummer": f"a{n}", "title": f"T{n}"} for n in range(5)]
    catalog = world(items, rows(("u", "a1"), ("v", "a3")))
    assert catalog.roles["items"]["item_id"] == "artikelnummer"
    assert histories(catalog) == {"u": ["a1"], "v": ["a3"]}
    assert "joins the two tables for 100%" in said(catalog)


def test_a_row_number_of_the_interactions_is_no_item_id(world, histories):
    pairs = [{"id": 900 + n, "user_id": "u", "ref": f"a{n}", "timestamp": n} for n in range(3)]
    catalog = world([{"item_id": f"a{n}"} for n in range(3)], pairs)
    assert histories(catalog) == {"u": ["a0", "a1", "a2"]}


def test_a_quantity_is_no_item_id(world):
    items = [{"item_id": n, "title": f"T{n}"} for n in range(1, 6)]
    bought = [{**row, "quantity": 1} for row in rows(("u", "x"), ("v", "y"))]
    with pytest.raises(Exception, match=r"2 of 2 interactions name 2 items"):
        world(items, bought)


def test_repeated_ids_yield_to_unique_ones_that_join_as_well(world):
    items = [{"sku": f"s{n}", "parent_asin": "p", "title": "t"} for n in range(3)]
    catalog = world(items, rows(("u", "s1"), ("u", "s2")))
    assert catalog.roles["items"]["item_id"] == "sku"


def test_names_with_types_after_a_colon_have_their_roles(world, histories):
    items = [{"item_id:token": "x", "title:token_seq": "X", "price:float": "3"}]
    bought = [{"user_id:token": "u", "item_id:token": "x", "timestamp:float": 3, "rating:float": 4}]
    catalog = world(items, bought, suffix="csv")
    assert histories(catalog) == {"u": ["x"]}
    assert catalog.items[0]["price"] == 3.0
    assert catalog.interactions.ratings is not None
    assert catalog.notes == []


@pytest.mark.parametrize(
    ("column", "role"),
    [
        *(
            ("image_link", "image"),
            ("image_url", "image"),
            ("Image Src", "image"),
            ("imUrl", "image"),
        ),
        *(("regular_price", "price"), ("variant_price", "price"), ("Variant Price", "price")),
        *(("Handle", "item_id"), ("Body (HTML)", "text"), ("product_category_name", "category")),
    ],
)
def test_usual_names_of_items_are_known(column, role):
    others = [column] if role == "item_id" else ["item_id", column, "link"]
    items, _ = resolve_roles(others, ["user_id", "item_id"], [])
    assert items[role] == ([column] if role == "text" else column)


@pytest.mark.parametrize("column", ["userID", "customer_unique_id", "reviewerID", "visitorid"])
def test_usual_names_of_users_are_known(column):
    assert resolve_roles(["item_id"], [column, "item_id"], [])[1]["user_id"] == column


def test_a_link_to_a_page_is_no_picture():
    assert "image" not in resolve_roles(["item_id", "link", "url"], ["user_id", "item_id"], [])[0]


def test_a_date_is_preferred_to_a_time_of_day_beside_it(world):
    bought = [
        {"user_id": "u", "item_id": "x", "Date": "1/5/2019", "Time": "13:08"},
        {"user_id": "u", "item_id": "x", "Date": "3/28/2019", "Time": "10:29"},
    ]
    catalog = world([{"item_id": "x"}], bought)
    assert catalog.roles["interactions"]["time"] == "Date"
    assert "join Date and Time" in said(catalog)


def test_a_column_of_a_usable_type_is_preferred(world):
    items = [{"item_id": "x", "title": {"en": "X"}, "name": "Mug", "images": [{"url": "u"}]}]
    catalog = world(items, rows(("u", "x")), suffix="parquet")
    assert catalog.items["title"][:] == ["Mug"]
    assert [note.where for note in catalog.notes] == ["items: images"]


def test_files_are_preferred_to_web_addresses(world):
    world.folder.mkdir()
    (world.folder / "a.jpg").write_bytes(b"x")
    items = [{"item_id": "x", "image": "https://example.org/a.jpg", "image_path": "a.jpg"}]
    catalog = world(items, rows(("u", "x")))
    assert catalog.roles["items"]["image"] == "image_path"
    assert catalog.items["image"][:] == [str(world.folder / "a.jpg")]


def test_a_column_that_stands_twice_stops_nothing(world, histories):
    world(suffix="csv")
    (world.folder / "interactions.csv").write_text("user_id,item_id,item_id,n,n\nu,7,8,1,2\n")
    (world.folder / "items.csv").write_text("item_id,title,title\n7,A,B\n")
    assert world.folder.is_dir()
    catalog = load_catalog(CatalogConfig(str(world.folder)))
    assert histories(catalog) == {"u": ["7"]}
    assert catalog.items["title"][:] == ["A"]
