"""Reads WooCommerce's product export, and exports of orders by its usual extensions."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
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
from catalog.sources.shaping import lookup, split_text, text_of, with_column, with_empty

EXPECTED = [
    "Type",
    "SKU",
    "Short description",
    "Description",
    "Sale price",
    "Regular price",
    "Categories",
    "Images",
    "Parent",
]
ROLES = {
    "title": "Name",
    "text": ["Short description", "Description"],
    "category": "Categories",
    "price": "Regular price",
    "image": "Images",
}
BUYERS = [
    "Customer User ID",
    "customer_id",
    "Email (Billing)",
    "billing_email",
    "customer_email",
    "Customer Email",
    "Billing Email",
]
"""Columns that name the buyer, the first that a row has; 0 stands for a guest."""
TIMES = ["Order Date", "order_date", "Date", "date", "Created Date", "Order Date and Time"]
LINE = re.compile(r"line_item_\d+$", re.IGNORECASE)
SINGLE = ["Product Id", "Product ID", "product_id", "SKU", "sku", "Item Name", "Product Name"]
"""Columns of exports with one row a line that name the product."""


def woocommerce_tables(config: CatalogConfig) -> RawTables:
    """A WooCommerce product export (`ID`, `Type`, `SKU`, `Name`, `Categories`, `Images`, `Parent` …) with an
    export of orders (columns `line_item_1` …, or one row a line) or a table `interactions.*` beside it.
    Items are products, by `ID`; variations count as the product that `Parent` names by id or SKU.
    """
    folder, named = existing_path(config, "a product export")
    heads = {path: columns_of(path, config) for path in [*named, *files_in(folder)]}
    products = named or [
        path for path, head in heads.items() if {"ID", "Type", "Name"} <= set(head)
    ]
    if not products or not {"ID", "Name"} <= set(heads[products[0]]):
        raise missing(folder, "product export with the columns ID, Type and Name", "woocommerce")
    orders = [path for path, head in heads.items() if path not in products and _is_orders(head)]
    export = Export(
        source="woocommerce",
        rows=_rows,
        products=_products,
        keys=_keys,
        num_ids=2,
        orders=_orders,
        roles=ROLES,
        order_roles={"user_id": "buyer", "time": "ordered"},
    )
    return export_tables(export, config, folder, products, orders)


def _is_orders(head: list[str]) -> bool:
    lines = any(LINE.match(name) for name in head) or bool(set(SINGLE) & set(head))
    return lines and bool(set(BUYERS) & set(head)) and bool(set(TIMES) & set(head))


def _rows(paths: list[Path], config: CatalogConfig, notes: Notes) -> pa.Table:
    """All rows of the export, with a column `product`: the ID of the product that each belongs to."""
    table = with_empty(read_table(paths, config, notes), EXPECTED)
    table = with_column(table, "ID", text_of(table["ID"]))
    if table["ID"].null_count:
        raise VitrineError(
            f"{table['ID'].null_count} rows of {paths[0]} have no ID; export the products again, as files "
            "for an import need no ID, and interactions do."
        )
    parents = text_of(table["Parent"])
    by_id = pc.replace_substring_regex(parents, r"^id:\s*", "")
    named = pc.coalesce(
        pc.if_else(
            pc.starts_with(parents, "id:"),
            lookup(by_id, table["ID"], table["ID"]),
            pa.scalar(None, pa.string()),
        ),
        lookup(parents, table["SKU"], table["ID"]),
    )
    varies = pc.fill_null(pc.match_substring(table["Type"], "variation"), False)
    lost = pc.and_(varies, pc.is_null(named))
    if count := pc.sum(lost).as_py():
        notes.add(
            paths[0].name,
            f"{count} variations name no product of the file as Parent, and count as products",
            count=count,
            examples=table["ID"].filter(lost)[:3].to_pylist(),
        )
    product = pc.if_else(varies, pc.coalesce(named, table["ID"]), table["ID"])
    return with_column(table, "product", product)


def _products(rows: pa.Table, where: str, notes: Notes) -> pa.Table:
    """One row a product; prices that it leaves to its variations are those of the first one."""
    own = pc.equal(rows["product"], rows["ID"])
    table, variations = rows.filter(own), rows.filter(pc.invert(own))
    priced = variations.filter(pc.is_valid(variations["Regular price"]))
    first = lookup(table["ID"], priced["product"], priced["Regular price"])
    filled = pc.coalesce(table["Regular price"], first)
    more = table["Regular price"].null_count - filled.null_count
    if more:
        notes.add(
            f"{where}: Regular price",
            f"of {more} products is that of their first variation",
            count=more,
        )
    table = with_column(table, "Regular price", filled)
    for name in ("Categories", "Images"):
        table = with_column(table, name, split_text(table[name], ",", escaped=r"\,"))
    return with_column(table.drop_columns(["product"]), "item_id", table["ID"])


def _keys(rows: pa.Table) -> list[Key]:
    return [
        Key("ID", rows["ID"], rows["product"]),
        Key("SKU", rows["SKU"], rows["product"]),
        Key("name", rows["Name"], rows["product"]),
    ]


def _orders(
    paths: list[Path], rows: Callable[[], pa.Table], config: CatalogConfig, notes: Notes
) -> pa.Table:
    """Lines of orders: buyer, ordered (time), item_id, quantity."""
    table = read_table(paths, config, notes)
    where = paths[0].name
    for name in ("Customer User ID", "customer_id"):
        if name in table.column_names:  # a guest
            ids = text_of(table[name])
            guest = pc.equal(ids, "0")
            table = with_column(table, name, pc.if_else(guest, pa.scalar(None, pa.string()), ids))
    table = with_buyers(table, BUYERS, where, notes)
    time = next(name for name in TIMES if name in table.column_names)
    table = with_column(table, "ordered", zoned_times(table[time]))
    keys = _keys(rows())
    lines = [name for name in table.column_names if LINE.match(name)]
    if lines:
        return _unfold(table, lines, keys, where, notes)
    name = next(name for name in SINGLE if name in table.column_names)
    ids = text_of(table[name])
    for other in SINGLE:
        if other in table.column_names:
            ids = pc.coalesce(ids, text_of(table[other]))
    return with_column(table, "item_id", match_products(ids, keys, f"{where}: {name}", notes))


def _unfold(
    table: pa.Table, lines: list[str], keys: list[Key], where: str, notes: Notes
) -> pa.Table:
    """One row a line of an order, from columns line_item_<n>: name:Cap|product_id:7|sku:c|quantity:1."""
    orders = pa.array(np.tile(np.arange(len(table)), len(lines)))
    cells = pa.chunked_array([chunk for name in lines for chunk in table[name].chunks], pa.string())
    numbers = pa.array(np.repeat(np.arange(len(lines)), len(table)))
    found = pa.table({"order": orders, "line": numbers, "cell": cells})
    found = found.filter(pc.is_valid(found["cell"]))
    found = found.sort_by([("order", "ascending"), ("line", "ascending")])
    parts = {
        part: pc.struct_field(
            pc.extract_regex(found["cell"], rf"(?:^|\|)\s*{part}:(?P<value>[^|]*)"), "value"
        )
        for part in ("product_id", "sku", "name", "quantity")
    }
    ids = pc.coalesce(*(text_of(parts[part]) for part in ("product_id", "sku", "name")))
    made = table.drop_columns(lines).take(found["order"].combine_chunks())
    made = with_column(made, "quantity", parts["quantity"])
    matched = match_products(ids, keys, f"{where}: line_item", notes)
    made = with_column(made, "item_id", matched)
    lost = made["item_id"].null_count
    if lost:
        notes.add(where, f"{lost} lines name no product and are left out", "dropped", count=lost)
    return made.filter(pc.is_valid(made["item_id"]))
