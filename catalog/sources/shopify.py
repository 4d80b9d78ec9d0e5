"""Reads Shopify's exports: products, one row a variant, and orders, one row a line."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.base import RawTables
from catalog.sources.finding import files_in, missing
from catalog.sources.purchases import (
    Export,
    Key,
    columns_of,
    existing_path,
    export_tables,
    match_products,
    with_buyers,
    zoned_times,
)
from catalog.sources.shaping import (
    grouped,
    is_blank,
    join,
    lookup,
    rows_without,
    text_of,
    with_column,
    with_empty,
)

EXPECTED = [
    "Title",
    "Body (HTML)",
    "Type",
    "Tags",
    "Variant SKU",
    "Variant Price",
    "Variant Barcode",
    "Product Category",
    "Image Src",
    "Image Position",
    "Option1 Value",
    "Option2 Value",
    "Option3 Value",
]
"""Columns that are read; those that an export lacks are empty."""
PRODUCT = {"Body (HTML)", "Variant Price", "Variant SKU", "Image Src"}
"""Columns that an export of products has, and one of stock has not."""
ROLES = {
    "title": "Title",
    "text": ["Body (HTML)", "Tags"],
    "category": "category",
    "price": "Variant Price",
    "image": "images",
}


def shopify_tables(config: CatalogConfig) -> RawTables:
    """A Shopify product export (`Handle`, `Title`, `Body (HTML)`, `Variant SKU`, `Variant Price`,
    `Image Src` …; one row a variant) with `orders_export.csv` or a table `interactions.*` beside it. Items
    are products, by handle; ids of interactions may be handles, SKUs or barcodes of variants.
    """
    folder, named = existing_path(config, "a product export")
    heads = {path: columns_of(path, config) for path in [*named, *files_in(folder)]}
    products = named or [
        path
        for path, head in heads.items()
        if {"Handle", "Title"} <= set(head) and PRODUCT & set(head)
    ]
    if not products or "Handle" not in heads[products[0]]:
        raise missing(folder, "product export with the columns Handle and Title", "shopify")
    orders = [path for path, head in heads.items() if {"Lineitem name", "Email"} <= set(head)]
    export = Export(
        source="shopify",
        rows=_variants,
        products=_products,
        keys=_keys,
        num_ids=3,
        orders=_orders,
        roles=ROLES,
        order_roles={"user_id": "buyer", "time": "Created at", "rating": None},
    )
    return export_tables(export, config, folder, products, orders)


def _variants(paths: list[Path], config: CatalogConfig, notes: Notes) -> pa.Table:
    """All rows of the export that have a handle."""
    table = with_empty(read_table(paths, config, notes), EXPECTED)
    table = with_column(table, "Handle", text_of(table["Handle"]))
    kept = pc.is_valid(table["Handle"])
    return rows_without(table, kept, paths[0].name, "have no handle and are left out", notes)


def _products(variants: pa.Table, where: str, notes: Notes) -> pa.Table:
    """One row a product: the first value of each column, and lists of its SKUs and pictures."""
    groups = variants.group_by("Handle", use_threads=False)
    columns = [name for name in variants.column_names if name != "Handle"]
    table = groups.aggregate([(name, "first") for name in columns])
    table = table.select(["Handle", *(f"{name}_first" for name in columns)])
    table = table.rename_columns(["Handle", *columns])
    table = with_column(table, "item_id", table["Handle"])
    place = pc.utf8_trim_whitespace(variants["Image Position"])
    place = pc.if_else(
        pc.match_substring_regex(place, r"^\d+$"), place, pa.scalar(None, pa.string())
    )
    ordered = variants.take(pc.array_sort_indices(place.cast(pa.int64()).combine_chunks()))
    handles = table["Handle"]
    pictures = grouped(ordered["Handle"], ordered["Image Src"], handles)
    table = with_column(table, "images", pictures)
    skus = grouped(variants["Handle"], variants["Variant SKU"], handles)
    table = with_column(table, "skus", skus)
    _note_prices(variants, where, notes)
    return with_column(table, "category", _categories(table, where, notes))


def _note_prices(variants: pa.Table, where: str, notes: Notes) -> None:
    counts = variants.group_by("Handle").aggregate([("Variant Price", "count_distinct")])
    many = counts.filter(pc.greater(counts["Variant Price_count_distinct"], 1))["Handle"]
    if len(many):
        notes.add(
            f"{where}: Variant Price",
            f"differs between the variants of {len(many)} products; theirs is that of the first variant",
            count=len(many),
            examples=many[:3].to_pylist(),
        )


def _categories(table: pa.Table, where: str, notes: Notes) -> pa.ChunkedArray:
    """The type, else the shop's category, else, where no product has either, the first tag."""
    last = pc.replace_substring_regex(table["Product Category"], r"^.*>\s*", "")
    found = pc.coalesce(text_of(table["Type"]), text_of(last))
    if not is_blank(found) or is_blank(table["Tags"]):
        return found
    notes.add(
        f"{where}: Tags",
        "the first tag is read as the category, as no product has a type",
        remedy="if that is wrong, set --catalog.roles '{category: null}'",
    )
    return text_of(pc.replace_substring_regex(table["Tags"], r",.*$", ""))


def _keys(variants: pa.Table) -> list[Key]:
    handles = variants["Handle"]
    titles = lookup(handles, handles, variants["Title"])
    options = [text_of(variants[f"Option{n} Value"]) for n in (1, 2, 3)]
    joined = options[0]
    for option in options[1:]:  # null_handling="skip" loses the rows where all are null
        joined = pc.coalesce(pc.binary_join_element_wise(joined, option, " / "), joined)
    names = pc.binary_join_element_wise(titles, joined, " - ")
    return [
        Key("handle", handles, handles),
        Key("SKU", variants["Variant SKU"], handles),
        Key("barcode", pc.replace_substring_regex(variants["Variant Barcode"], "^'", ""), handles),
        Key("title", titles, handles),
        Key("title and variant", names, handles),
    ]


def _orders(
    paths: list[Path], variants: Callable[[], pa.Table], config: CatalogConfig, notes: Notes
) -> pa.Table:
    """Lines of orders: buyer, item_id, quantity, time. Further lines of an order may lack all but those."""
    table = read_table(paths, config, notes)
    where = paths[0].name
    table = with_empty(table, ["Lineitem sku", "Created at", "Name", "Paid at"])
    table = with_column(table, "Created at", pc.coalesce(table["Created at"], table["Paid at"]))
    for name in ("Email", "Phone", "Created at", "Cancelled at"):
        if name in table.column_names:
            firsts = table.filter(pc.is_valid(table[name])).select(["Name", name])
            filled = join(table.select(["Name"]), "Name", firsts, "Name")[name]
            table = with_column(table, name, pc.coalesce(table[name], filled))
    table = rows_without(
        table, pc.is_valid(table["Lineitem name"]), where, "are no lines of an order", notes
    )
    table = with_buyers(table, ["Email", "Phone"], where, notes)
    table = with_column(table, "Created at", zoned_times(table["Created at"]))
    if "Cancelled at" in table.column_names and (
        count := len(table) - table["Cancelled at"].null_count
    ):
        notes.add(
            where,
            f"{count} lines are of cancelled orders, and are kept as interactions",
            count=count,
            remedy="remove them from the file if they should not count",
        )
    keys = _keys(variants())
    ids = pc.coalesce(text_of(table["Lineitem sku"]), text_of(table["Lineitem name"]))
    found = match_products(ids, [keys[0], *keys[1:2]], f"{where}: Lineitem sku", notes)
    unknown = pc.invert(pc.is_in(found, value_set=keys[0].values.combine_chunks()))
    by_name = match_products(
        pc.if_else(unknown, table["Lineitem name"], found),
        [keys[0], *keys[3:]],
        f"{where}: Lineitem name",
        notes,
    )
    return with_column(table, "item_id", by_name)
