"""Converts a table of items to a catalog's format: columns by role, plain text, absolute paths."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.columns import as_text, decodable, first_text
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Note, Notes
from catalog.roles import Roles
from catalog.values.html import without_html
from catalog.values.ids import is_text
from catalog.values.numbers import read_numbers
from catalog.values.paths import Finder, find_pictures


@dataclass(frozen=True)
class ConvertedItems:
    """The items of a catalog, and how they were read."""

    items: pa.Table
    """item_id, title, text, category, image (absolute path), price (null where there is none)."""
    columns: pa.Table
    """The items table, without rows that have no id, and with plain text in place of HTML."""
    roles: Roles
    """Role → column, of those with a usable type."""
    assigned: Roles
    """Role → column, as they were assigned by names and values."""
    notes: list[Note]
    is_aligned: bool = False
    """Whether ids lack a ".0" that the table has, as those of the interactions do."""


def plain_columns(table: pa.Table, roles: Roles, notes: Notes) -> pa.Table:
    """The items table with plain text in all columns of text, except ids and paths."""
    for place, name in enumerate(table.column_names):
        if name not in (roles["item_id"], roles.get("image")):
            given = table[name]
            column = decodable(given) if is_text(given) else given
            plain = without_html(column, f"items: {name}", notes)
            if plain is not given:
                table = table.set_column(place, name, plain)
    return table


def convert_items(
    table: pa.Table,
    ids: pa.ChunkedArray,
    roles: Roles,
    folder: Path,
    config: CatalogConfig,
    notes: Notes,
    finder: Finder | None = None,
) -> pa.Table:
    """The items table by roles; VitrineError for repeated ids and for images outside the folder.

    Columns of a type that has no text or number are left out, also of `roles`, and noted. `finder`: of
    the pictures in `folder`, where the table is one batch of several.
    """
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise VitrineError(
            f"items name {len(repeated)} ids more than once ({first_ids(repeated)}); keep one row "
            "each."
        )
    blank = pa.chunked_array([pa.nulls(table.num_rows, pa.large_string())])
    dot = pa.scalar(". ", pa.large_string())
    joined = blank
    for name in list(roles.get("text", [])):
        alone = {"text": name}
        text = optional_text(table, alone, "text", "items", notes)
        if text is None:
            roles["text"].remove(name)
            continue
        # null_handling="skip" loses the rows where all are null (pyarrow 26).
        joined = pc.coalesce(pc.binary_join_element_wise(joined, text, dot), joined, text)
    price = optional_numbers(table, roles, "price", "items", notes, {"decimal": config.decimal})
    title = optional_text(table, roles, "title", "items", notes)
    category = optional_text(table, roles, "category", "items", notes, first_text)
    image = optional_text(table, roles, "image", "items", notes, first_text)
    if image is not None:
        image = find_pictures(image, ids, folder, f"items: {roles['image']}", notes, finder)
    return pa.table(
        {
            "item_id": ids,
            "title": blank if title is None else title,
            "text": joined,
            "category": blank if category is None else category,
            "image": blank if image is None else image,
            "price": pa.nulls(table.num_rows, pa.float64()) if price is None else price,
        }
    )


def optional_text(
    table: pa.Table,
    roles: Roles,
    role: str,
    where: str,
    notes: Notes,
    read: Callable[[pa.ChunkedArray, str], pa.ChunkedArray] = as_text,
) -> pa.ChunkedArray | None:
    """The text of a role's column; None without one, or if it has no text form, which is noted."""
    if role not in roles:
        return None
    try:
        return read(table[roles[role]], roles[role])
    except VitrineError as error:
        notes.add(f"{where}: {roles.pop(role)}", f"is left out as {role}: {error}")
        return None


def optional_numbers(
    table: pa.Table, roles: Roles, role: str, where: str, notes: Notes, how: dict[str, Any]
) -> pa.ChunkedArray | None:
    """The numbers of a role's column; None without one, or if it has none, which is noted."""

    def read(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        return read_numbers(column, name, where, notes, **how)

    return optional_text(table, roles, role, where, notes, read)


def first_ids(ids: pa.ChunkedArray | pa.Array) -> str:
    """The first three ids, for a message."""
    return ", ".join(str(value) for value in ids[:3].to_pylist())
