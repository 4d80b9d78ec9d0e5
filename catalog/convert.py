"""Converts raw tables to a catalog's format on disk: items in Arrow, histories in arrays."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import as_text, decodable, first_text
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.hashing import hash_ids, splitmix64
from catalog.notes import Notes
from catalog.roles import Roles, resolve_roles
from catalog.sources.base import RawTables
from catalog.values.dates import read_times
from catalog.values.html import without_html
from catalog.values.ids import (
    align_ids,
    drop_without_id,
    is_text,
    match_hint,
    note_without_id,
    read_ids,
)
from catalog.values.names import ORDER_NAMES, plain_name
from catalog.values.numbers import read_numbers
from catalog.values.paths import find_pictures

TIES_KEY = b"vitrine ties"
"""Key of the hashes that shuffle interactions at the same time."""


@dataclass(frozen=True)
class Converted:
    """A catalog's content, aligned by id."""

    items: pa.Table
    """item_id, title, text, category, image (absolute path), price (null where there is none)."""
    columns: pa.Table
    """The items table, without rows that have no id, and with plain text in place of HTML."""
    user_ids: NDArray[np.str_]
    """(num_users,), in the order of their first interaction in the file."""
    offsets: NDArray[np.int64]
    """(num_users + 1,)"""
    item_rows: NDArray[np.int32]
    """(num_interactions,)"""
    times: NDArray[np.int64]
    """(num_interactions,)"""
    ratings: NDArray[np.float32] | None
    """(num_interactions,)"""
    reviews: pa.Table | None
    """One column `review`, (num_interactions,) rows."""
    split_labels: pa.Table | None
    """One column `split`, (num_interactions,) rows: the subset of each, as the table names it."""
    edges: NDArray[np.int32] | None
    """(e, 2): rows of linked items."""
    roles: Roles
    """Role → column, for items and interactions."""
    has_timestamps: bool
    """False where times only order each user's own items."""
    num_dropped: int
    """Interactions left out because they name unknown items."""
    notes: Notes
    """How the tables were read."""


def convert(raw: RawTables, config: CatalogConfig) -> Converted:
    """Reads, checks and sorts a catalog's tables; VitrineError for what the user must correct."""
    notes = raw.notes
    raw_items, raw_interactions = raw.read_items(), raw.read_interactions()
    for name, table in (("items", raw_items), ("interactions", raw_interactions)):
        if table.num_rows == 0:
            raise VitrineError(f"the catalog {raw.name} has no {name}; the table holds no rows.")
    raw_items, raw_interactions = map(_first_of_each_name, (raw_items, raw_interactions))
    item_roles, roles = resolve_roles(
        raw_items.column_names,
        raw_interactions.column_names,
        [raw.roles, config.roles or {}],
        (raw_items, raw_interactions),
        notes,
    )
    item_ids = read_ids(raw_items[item_roles["item_id"]], item_roles["item_id"], "items", notes)
    raw_items, item_ids = drop_without_id(raw_items, item_ids, "item_id", "items", notes)
    rows = _read_rows(raw_interactions, roles, raw.name, config, notes)
    ids, item_ids = align_ids(rows.ids, item_ids, notes)
    columns = _without_html(raw_items, item_roles, notes)
    items = convert_items(columns, item_ids, item_roles, raw.folder, config, notes)
    rows, dropped = _keep_known(replace(rows, ids=ids), items["item_id"], raw.name, config)

    user_ids = pc.unique(rows.users)
    user_rows = pc.index_in(rows.users, value_set=user_ids).to_numpy().astype(np.int32)
    item_rows = pc.index_in(rows.ids, value_set=items["item_id"]).to_numpy().astype(np.int32)
    timed, times = _times(rows.table, roles, user_rows, len(user_ids), config, notes)
    order = _order(times, user_rows, item_rows, user_ids, items["item_id"], config)
    counts = np.bincount(user_rows, minlength=len(user_ids))
    places = pa.array(order)
    reviews = _optional_text(rows.table, roles, "review", "interactions", notes)
    if reviews is not None:
        reviews = without_html(reviews, f"interactions: {roles['review']}", notes)
    given = _optional_text(rows.table, roles, "split", "interactions", notes)
    return Converted(
        items=items,
        columns=columns,
        user_ids=user_ids.to_numpy(zero_copy_only=False).astype(np.str_),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_rows=item_rows[order],
        times=times[order],
        ratings=None if rows.ratings is None else rows.ratings.to_numpy().astype(np.float32)[order],
        reviews=None if reviews is None else pa.table({"review": reviews.take(places)}),
        split_labels=None if given is None else pa.table({"split": given.take(places)}),
        edges=None
        if raw.read_edges is None
        else _edges(raw.read_edges(), items["item_id"], raw.name, config, notes),
        roles={"items": item_roles, "interactions": roles},
        has_timestamps=timed,
        num_dropped=dropped,
        notes=notes,
    )


@dataclass(frozen=True)
class _Rows:
    """Interactions in the file's order."""

    table: pa.Table
    users: pa.ChunkedArray
    """(table.num_rows,)"""
    ids: pa.ChunkedArray
    """(table.num_rows,): of items"""
    ratings: pa.ChunkedArray | None
    """(table.num_rows,)"""

    def filter(self, mask: pa.ChunkedArray) -> "_Rows":
        ratings = None if self.ratings is None else self.ratings.filter(mask)
        return _Rows(
            self.table.filter(mask), self.users.filter(mask), self.ids.filter(mask), ratings
        )


def _read_rows(
    table: pa.Table, roles: Roles, name: str, config: CatalogConfig, notes: Notes
) -> _Rows:
    """The interactions with a sufficient rating, a user and an item."""
    table, ratings = _read_ratings(table, roles, name, config, notes)
    columns = {}
    for role in ("user_id", "item_id"):
        columns[role] = read_ids(table[roles[role]], roles[role], "interactions", notes)
    rows = _Rows(table, columns["user_id"], columns["item_id"], ratings)
    for role in ("user_id", "item_id"):
        ids = rows.users if role == "user_id" else rows.ids
        note_without_id(ids, role, "interactions", notes)
        if ids.null_count:
            rows = rows.filter(pc.is_valid(ids))
    return rows


def _read_ratings(
    table: pa.Table, roles: Roles, name: str, config: CatalogConfig, notes: Notes
) -> tuple[pa.Table, pa.ChunkedArray | None]:
    """The rows with a sufficient rating, and the ratings of these."""
    how: dict[str, Any] = {"decimal": config.decimal, "rating": True}
    if config.min_rating is None:
        return table, _optional_numbers(table, roles, "rating", "interactions", notes, how)
    if "rating" not in roles:
        raise VitrineError(
            f"min_rating is {config.min_rating}, but the interactions have no rating column; "
            "name it with roles: {rating: <column>}."
        )
    column = roles["rating"]
    ratings = read_numbers(table[column], column, "interactions", notes, **how)
    sufficient = pc.greater_equal(ratings, config.min_rating)
    if not pc.any(sufficient).as_py():
        raise VitrineError(
            f"no interaction of {name} is rated {config.min_rating} or better; "
            f"the best is {pc.max(ratings).as_py()}."
        )
    if ratings.null_count:
        what = f"{ratings.null_count} rows have no rating and are left out, as min_rating is set"
        notes.add(f"interactions: {column}", what, "dropped", count=ratings.null_count)
    return table.filter(sufficient), ratings.filter(sufficient)


def _order(
    times: NDArray[np.int64],
    user_rows: NDArray[np.int32],
    item_rows: NDArray[np.int32],
    user_ids: pa.Array,
    item_ids: pa.ChunkedArray,
    config: CatalogConfig,
) -> NDArray[np.int64]:
    """The places of interactions by user, time, and for ties by `config.ties`."""
    keys = [times, user_rows]
    if config.ties == "shuffle":
        users_hash = hash_ids(user_ids.to_pylist(), key=TIES_KEY)[user_rows]
        items_hash = hash_ids(item_ids.to_pylist(), key=TIES_KEY)[item_rows]
        keys.insert(0, splitmix64(users_hash ^ splitmix64(items_hash)))
    return np.lexsort(keys)  # stable: ties keep the file's order


def _first_of_each_name(table: pa.Table) -> pa.Table:
    names = table.column_names
    return table.select([place for place, name in enumerate(names) if names.index(name) == place])


def _without_html(table: pa.Table, roles: Roles, notes: Notes) -> pa.Table:
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
) -> pa.Table:
    """The items table by roles; VitrineError for repeated ids and for images outside the folder.

    Columns of a type that has no text or number are left out, also of `roles`, and noted.
    """
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise VitrineError(
            f"items name {len(repeated)} ids more than once ({_first(repeated)}); keep one row "
            "each."
        )
    blank = pa.chunked_array([pa.nulls(table.num_rows, pa.large_string())])
    dot = pa.scalar(". ", pa.large_string())
    joined = blank
    for name in list(roles.get("text", [])):
        alone = {"text": name}
        text = _optional_text(table, alone, "text", "items", notes)
        if text is None:
            roles["text"].remove(name)
            continue
        # null_handling="skip" loses the rows where all are null (pyarrow 26).
        joined = pc.coalesce(pc.binary_join_element_wise(joined, text, dot), joined, text)
    price = _optional_numbers(table, roles, "price", "items", notes, {"decimal": config.decimal})
    title = _optional_text(table, roles, "title", "items", notes)
    category = _optional_text(table, roles, "category", "items", notes, first_text)
    image = _optional_text(table, roles, "image", "items", notes, first_text)
    if image is not None:
        image = find_pictures(image, ids, folder, f"items: {roles['image']}", notes)
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


def _optional_text(
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


def _optional_numbers(
    table: pa.Table, roles: Roles, role: str, where: str, notes: Notes, how: dict[str, Any]
) -> pa.ChunkedArray | None:
    """The numbers of a role's column; None without one, or if it has none, which is noted."""

    def read(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        return read_numbers(column, name, where, notes, **how)

    return _optional_text(table, roles, role, where, notes, read)


def _keep_known(
    rows: _Rows, item_ids: pa.ChunkedArray, name: str, config: CatalogConfig
) -> tuple[_Rows, int]:
    """The interactions with a known item, and the number of those with an unknown one."""
    ids = rows.ids
    known = pc.is_in(ids, value_set=item_ids)
    unknown = ids.filter(pc.invert(known))
    if not len(unknown):
        return rows, 0
    if config.unknown_items == "error":
        distinct = pc.unique(unknown)
        raise VitrineError(
            f"{len(unknown)} of {len(ids)} interactions name {len(distinct)} items the items table "
            f"lacks ({_first(distinct)}); {match_hint(distinct, item_ids)}add them, or set "
            "unknown_items: drop."
        )
    if len(unknown) == len(ids):
        raise VitrineError(
            f"no interaction of {name} names a known item ({_first(unknown)} … against "
            f"{_first(item_ids)} …); {match_hint(pc.unique(unknown), item_ids)}check the roles of "
            "both item_id columns."
        )
    return rows.filter(known), len(unknown)


def _edges(
    table: pa.Table, item_ids: pa.ChunkedArray, name: str, config: CatalogConfig, notes: Notes
) -> NDArray[np.int32]:
    """The edges as rows of the items table, int32 (e, 2), without edges from an item to itself."""
    if table.num_columns < 2:
        raise VitrineError(f"the edges of {name} need two columns, the ids of the linked items.")
    columns = [
        read_ids(table[place], table.column_names[place], "edges", notes) for place in (0, 1)
    ]
    given = pc.and_(*(pc.is_valid(ids) for ids in columns))
    for ids in columns:
        note_without_id(ids, "item_id", "edges", notes)
    ends = []
    for ids in columns:
        ids = ids.filter(given)
        rows = pc.index_in(ids, value_set=item_ids)
        if rows.null_count and config.unknown_items == "error":
            unknown = pc.unique(ids.filter(pc.is_null(rows)))
            raise VitrineError(
                f"the edges of {name} name {len(unknown)} items the items table lacks "
                f"({_first(unknown)}); add them, or set unknown_items: drop."
            )
        ends.append(rows.fill_null(-1).to_numpy().astype(np.int32))
    edges = np.stack(ends, axis=1)
    return edges[(edges >= 0).all(axis=1) & (edges[:, 0] != edges[:, 1])]


def _times(
    table: pa.Table,
    roles: Roles,
    user_rows: NDArray[np.int32],
    num_users: int,
    config: CatalogConfig,
    notes: Notes,
) -> tuple[bool, NDArray[np.int64]]:
    """Whether times are comparable between users, and the times; without a column, row numbers."""
    if "time" in roles:
        column = roles["time"]
        times = read_times(table[column], column, config.dates, notes).to_numpy()
        return plain_name(column) not in ORDER_NAMES, times
    # In a file sorted by user the order of rows does not order times of different users.
    changes = int(np.count_nonzero(np.diff(user_rows)))
    return changes != num_users - 1, np.arange(table.num_rows, dtype=np.int64)


def _first(ids: pa.ChunkedArray | pa.Array) -> str:
    return ", ".join(str(value) for value in ids[:3].to_pylist())
