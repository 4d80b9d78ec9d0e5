"""Finds a shop's interactions beside its products, and the product that each one names."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.reading.encoding import wide_encoding
from catalog.reading.files import table_files
from catalog.reading.recognize import KINDS, SPOKEN, suffix_of
from catalog.reading.streams import byte_blocks, recognize_compression
from catalog.roles import ITEM_ROLES
from catalog.sources.base import RawTables
from catalog.sources.finding import choose
from catalog.sources.shaping import lookup, text_of, with_column

ZONE = r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ([+-]\d\d):?(\d\d)$"
"""Times as shops write them, 2024-05-01 10:20:30 -0400."""
HEAD = 1 << 16
"""Bytes in which a file's first line must end."""
SHOP_IDS = ["handle", "sku", "variant_sku", "variant_id", "variation_id", "offer_id", "product"]


@dataclass(frozen=True)
class Key:
    """A way to name a product: values (n,) and the id of the product that each stands for (n,)."""

    name: str
    values: pa.ChunkedArray
    products: pa.ChunkedArray


@dataclass(frozen=True)
class Export:
    """How a shop's system exports products, in several rows each, and orders."""

    source: str
    rows: Callable[[list[Path], CatalogConfig, Notes], pa.Table]
    """Reads all rows of the export of products."""
    products: Callable[[pa.Table, str, Notes], pa.Table]
    """One row a product, of these rows and the name of their file."""
    keys: Callable[[pa.Table], list[Key]]
    """Ways to name a product by these rows."""
    num_ids: int
    """How many of the first keys are ids, by which a table of interactions may name products."""
    orders: Callable[[list[Path], Callable[[], pa.Table], CatalogConfig, Notes], pa.Table]
    """Reads the lines of orders, given what reads the rows of products."""
    roles: dict[str, Any]
    order_roles: dict[str, Any]
    """Roles of the lines of orders, beside those of products."""


def export_tables(
    export: Export, config: CatalogConfig, folder: Path, products: list[Path], orders: list[Path]
) -> RawTables:
    """Tables of an export of products, and of orders or of the interactions beside it."""
    notes = Notes()
    parts = interaction_parts(folder, orders, export.source, notes)
    part, paths = choose(parts, config, folder, "kind of interaction")
    rows = cache(partial(export.rows, products, config, notes))

    def read_interactions() -> pa.Table:
        if part == "orders":
            return export.orders(paths, rows, config, notes)
        return read_purchases(paths, export.keys(rows())[: export.num_ids], config, notes)

    return RawTables(
        name=folder.name,
        folder=folder,
        files=[*products, *paths],
        item_files=products,
        read_items=lambda: export.products(rows(), products[0].name, notes),
        read_interactions=read_interactions,
        roles=export.roles | (export.order_roles if part == "orders" else {}),
        notes=notes,
    )


def columns_of(path: Path, config: CatalogConfig) -> list[str]:
    """The names in the first line of a delimited file; [] for other files and broken ones."""
    if KINDS.get(suffix_of(path)) != "delimited":
        return []
    try:  # without `recognize`, which reads the whole file
        head = next(byte_blocks(path, recognize_compression(path), HEAD), b"")
        text = head.decode(wide_encoding(head) or "utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("sep=")]
        given = SPOKEN.get(config.delimiter, config.delimiter)
        delimiter = given if len(given) == 1 else max(",\t;|", key=lines[0].count)
        return [name.strip() for name in next(csv.reader(lines[:1], delimiter=delimiter))]
    except (VitrineError, LookupError, csv.Error):
        return []


def existing_path(config: CatalogConfig, what: str) -> tuple[Path, list[Path]]:
    """The folder that `config.path` names or that holds it, and the file that it names, if any."""
    if not config.path:
        raise VitrineError(f"catalog.path is empty; name {what}, or the folder that holds it.")
    path = Path(config.path).expanduser()
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else []
        hint = did_you_mean(path.name, (other.name for other in siblings))
        raise VitrineError(f"{config.path} does not exist.{hint}")
    path = path.resolve()
    return (path, []) if path.is_dir() else (path.parent, [path])


def interaction_parts(
    folder: Path, orders: list[Path], source: str, notes: Notes
) -> dict[str, list[Path]]:
    """ "orders" and "interactions" → their files; VitrineError where there are neither."""
    parts = {"orders": orders, "interactions": table_files(folder, "interactions", notes)}
    found = {name: paths for name, paths in parts.items() if paths}
    if not found:
        raise VitrineError(
            f"{folder} holds products, but neither an export of orders nor a table interactions.csv "
            f"(user, item, time), which the source {source} needs beside them."
        )
    return found


def read_purchases(
    paths: list[Path], keys: Sequence[Key], config: CatalogConfig, notes: Notes
) -> pa.Table:
    """A table of interactions, with the product of each in the column `item_id`, or the role's column."""
    table = read_table(paths, config, notes)
    given = (config.roles or {}).get("item_id")
    names = [given] if given in table.column_names else [*ITEM_ROLES["item_id"], *SHOP_IDS]
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in table.column_names}
    name = next(
        (
            plain[key]
            for one in names
            if (key := re.sub(r"[^a-z0-9]", "", str(one).lower())) in plain
        ),
        None,
    )
    if name is None:
        raise VitrineError(
            f"{paths[0]} has no column that looks like an item's id among "
            f"{', '.join(table.column_names)}; name it with roles: {{item_id: <column>}}."
        )
    ids = match_products(table[name], keys, f"{paths[0].name}: {name}", notes)
    return with_column(table, name if given else "item_id", ids)


def match_products(
    ids: pa.ChunkedArray, keys: Sequence[Key], where: str, notes: Notes
) -> pa.ChunkedArray:
    """The product of each id: by the key that most ids are equal to, and by the others where it fails.

    Ids that no key has are left as they are, so that they count as unknown items.
    """
    ids = text_of(ids)
    found = [(lookup(ids, key.values, key.products), key) for key in keys]
    found.sort(key=lambda pair: pair[0].null_count)
    best, key = found[0]
    matched = len(ids) - best.null_count
    if matched and key is not keys[0]:
        notes.add(
            where,
            f"{matched} of {len(ids)} values are a product's {key.name}; each stands for its product",
            remedy="if that is wrong, name another column with --catalog.roles '{item_id: …}'",
        )
    for other, key in found[1:]:
        filled = pc.coalesce(best, other)
        more = best.null_count - filled.null_count
        if more:
            notes.add(where, f"{more} of {len(ids)} values are a product's {key.name}", count=more)
        best = filled
    return pc.coalesce(best, ids)


def zoned_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """2024-05-01 10:20:30 -0400 → 2024-05-01T10:20:30-0400, in text; other texts unchanged."""
    return pc.replace_substring_regex(column, ZONE, r"\1T\2\3\4")


def with_buyers(table: pa.Table, names: Sequence[str], where: str, notes: Notes) -> pa.Table:
    """The table with a column `buyer`, the first of these columns that a row has; others are dropped."""
    there = [text_of(table[name]) for name in names if name in table.column_names]
    if not there:
        raise VitrineError(
            f"{where} has none of the columns {', '.join(names)}, so that nobody's history is known."
        )
    buyers = pc.coalesce(*there)
    table = with_column(table, "buyer", buyers)
    if buyers.null_count:
        notes.add(
            where,
            f"{buyers.null_count} rows name no buyer and are left out",
            "dropped",
            count=buyers.null_count,
        )
        table = table.filter(pc.is_valid(buyers))
    return table
