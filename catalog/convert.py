"""Converts raw tables to a catalog's format on disk: items in Arrow, histories in arrays."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import as_numbers, as_text, as_times, first_text
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.hashing import hash_ids, splitmix64
from catalog.notes import Notes
from catalog.roles import ORDER_NAMES, Roles, resolve_roles
from catalog.sources.base import RawTables

URL_PATTERN = r"^[a-zA-Z][a-zA-Z0-9+.-]+://"
TIES_KEY = b"vitrine ties"
"""Key of the hashes that shuffle interactions at the same time."""


@dataclass(frozen=True)
class Converted:
    """A catalog's content, aligned by id."""

    items: pa.Table
    """item_id, title, text, category, image (absolute path), price (null where there is none)."""
    columns: pa.Table
    """The items table, unchanged."""
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
    raw_items, raw_interactions = raw.read_items(), raw.read_interactions()
    for name, table in (("items", raw_items), ("interactions", raw_interactions)):
        if table.num_rows == 0:
            raise VitrineError(f"the catalog {raw.name} has no {name}; the table holds no rows.")
    item_roles, roles = resolve_roles(
        raw_items.column_names, raw_interactions.column_names, [raw.roles, config.roles or {}]
    )
    items = convert_items(raw_items, item_roles, raw.folder)
    interactions, dropped = _keep_known(raw_interactions, roles, items["item_id"], raw.name, config)

    users = as_text(interactions[roles["user_id"]], roles["user_id"])
    _refuse_nulls(users, "interactions", "user_id")
    user_ids = pc.unique(users)
    user_rows = pc.index_in(users, value_set=user_ids).to_numpy().astype(np.int32)
    ids = as_text(interactions[roles["item_id"]], roles["item_id"])
    item_rows = pc.index_in(ids, value_set=items["item_id"]).to_numpy().astype(np.int32)
    timed, times = _times(interactions, roles, user_rows, len(user_ids))

    keys = [times, user_rows]
    if config.ties == "shuffle":
        users_hash = hash_ids(user_ids.to_pylist(), key=TIES_KEY)[user_rows]
        items_hash = hash_ids(items["item_id"].to_pylist(), key=TIES_KEY)[item_rows]
        keys.insert(0, splitmix64(users_hash ^ splitmix64(items_hash)))
    order = np.lexsort(keys)  # stable: ties keep the file's order
    counts = np.bincount(user_rows, minlength=len(user_ids))
    ratings = _column(interactions, roles, "rating")
    reviews = _column(interactions, roles, "review")
    given = _column(interactions, roles, "split")
    return Converted(
        items=items,
        columns=_first_of_each_name(raw_items),
        user_ids=user_ids.to_numpy(zero_copy_only=False).astype(np.str_),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_rows=item_rows[order],
        times=times[order],
        ratings=None
        if ratings is None
        else as_numbers(ratings, roles["rating"]).to_numpy().astype(np.float32)[order],
        reviews=None
        if reviews is None
        else pa.table({"review": as_text(reviews, roles["review"]).take(pa.array(order))}),
        split_labels=None
        if given is None
        else pa.table({"split": as_text(given, roles["split"]).take(pa.array(order))}),
        edges=None
        if raw.read_edges is None
        else _edges(raw.read_edges(), items["item_id"], raw.name, config),
        roles={"items": item_roles, "interactions": roles},
        has_timestamps=timed,
        num_dropped=dropped,
        notes=raw.notes,
    )


def _first_of_each_name(table: pa.Table) -> pa.Table:
    names = table.column_names
    return table.select([place for place, name in enumerate(names) if names.index(name) == place])


def convert_items(table: pa.Table, roles: Roles, folder: Path) -> pa.Table:
    """The items table by roles; VitrineError for repeated ids and for images outside the folder."""
    ids = as_text(table[roles["item_id"]], roles["item_id"])
    _refuse_nulls(ids, "items", "item_id")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise VitrineError(
            f"items name {len(repeated)} ids more than once ({_first(repeated)}); keep one row "
            "each."
        )
    blank = pa.nulls(table.num_rows, pa.large_string())
    texts = [as_text(table[name], name) for name in roles.get("text", [])]
    dot = pa.scalar(". ", pa.large_string())
    joined = blank
    for text in texts:
        # null_handling="skip" loses the rows where all are null (pyarrow 26).
        joined = pc.coalesce(pc.binary_join_element_wise(joined, text, dot), joined, text)
    price = _column(table, roles, "price")
    title = _column(table, roles, "title")
    category = _column(table, roles, "category")
    image = _column(table, roles, "image")
    return pa.table(
        {
            "item_id": ids,
            "title": blank if title is None else as_text(title, roles["title"]),
            "text": joined,
            "category": blank if category is None else first_text(category, roles["category"]),
            "image": blank
            if image is None
            else _absolute(first_text(image, roles["image"]), ids, folder),
            "price": pa.nulls(table.num_rows, pa.float64())
            if price is None
            else as_numbers(price, roles["price"]),
        }
    )


def _keep_known(
    table: pa.Table, roles: Roles, item_ids: pa.ChunkedArray, name: str, config: CatalogConfig
) -> tuple[pa.Table, int]:
    """The interactions with a sufficient rating and a known item, and the number with an unknown item."""
    if config.min_rating is not None:
        if "rating" not in roles:
            raise VitrineError(
                f"min_rating is {config.min_rating}, but the interactions have no rating column; "
                "name it with roles: {rating: <column>}."
            )
        ratings = as_numbers(table[roles["rating"]], roles["rating"])
        table = table.filter(pc.greater_equal(ratings, config.min_rating))
        if table.num_rows == 0:
            raise VitrineError(
                f"no interaction of {name} is rated {config.min_rating} or better; "
                f"the best is {pc.max(ratings).as_py()}."
            )
    ids = as_text(table[roles["item_id"]], roles["item_id"])
    _refuse_nulls(ids, "interactions", "item_id")
    known = pc.is_in(ids, value_set=item_ids)
    unknown = ids.filter(pc.invert(known))
    if not len(unknown):
        return table, 0
    if config.unknown_items == "error":
        distinct = pc.unique(unknown)
        raise VitrineError(
            f"{len(unknown)} of {len(ids)} interactions name {len(distinct)} items the items table "
            f"lacks ({_first(distinct)}); add them, or set unknown_items: drop."
        )
    if len(unknown) == len(ids):
        raise VitrineError(
            f"no interaction of {name} names a known item ({_first(unknown)} … against "
            f"{_first(item_ids)} …); check the roles of both item_id columns."
        )
    return table.filter(known), len(unknown)


def _edges(
    table: pa.Table, item_ids: pa.ChunkedArray, name: str, config: CatalogConfig
) -> NDArray[np.int32]:
    """The edges as rows of the items table, int32 (e, 2), without edges from an item to itself."""
    if table.num_columns < 2:
        raise VitrineError(f"the edges of {name} need two columns, the ids of the linked items.")
    ends = []
    for column in table.column_names[:2]:
        ids = as_text(table[column], column)
        _refuse_nulls(ids, "edges", column)
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
    table: pa.Table, roles: Roles, user_rows: NDArray[np.int32], num_users: int
) -> tuple[bool, NDArray[np.int64]]:
    """Whether times are comparable between users, and the times; without a column, row numbers."""
    if "time" in roles:
        times = as_times(table[roles["time"]], roles["time"]).to_numpy()
        return roles["time"].lower() not in ORDER_NAMES, times
    # In a file sorted by user the order of rows does not order times of different users.
    changes = int(np.count_nonzero(np.diff(user_rows)))
    return changes != num_users - 1, np.arange(table.num_rows, dtype=np.int64)


def _absolute(paths: pa.ChunkedArray, ids: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    """Absolute image paths; VitrineError for the first one outside the folder."""
    base = os.path.realpath(folder)
    addresses = pc.match_substring_regex(paths, URL_PATTERN)
    if pc.any(addresses).as_py():
        row = pc.index(addresses, True).as_py()
        raise VitrineError(
            f"item {ids[row]} has the image {paths[row]}; download the images and give "
            "relative paths, or set roles: {image: null}."
        )
    parents: dict[str, bool] = {}
    absolute: list[str | None] = []
    for item, path in zip(ids.to_pylist(), paths.to_pylist(), strict=True):
        if path is None:
            absolute.append(None)
            continue
        full = os.path.normpath(os.path.join(base, path))
        if not _stays_inside(full, base, parents):
            raise VitrineError(
                f"item {item} has the image {path}, which lies outside {folder}; "
                "a catalog's images must lie inside its folder."
            )
        absolute.append(full)
    return pa.chunked_array([pa.array(absolute, pa.large_string())])


def _stays_inside(full: str, base: str, parents: dict[str, bool]) -> bool:
    parent = os.path.dirname(full)
    if parent not in parents:  # many images share few folders
        parents[parent] = _is_under(os.path.realpath(parent), base)
    if not parents[parent]:
        return False
    return not os.path.islink(full) or _is_under(os.path.realpath(full), base)


def _is_under(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip(os.sep) + os.sep)


def _column(table: pa.Table, roles: Roles, role: str) -> pa.ChunkedArray | None:
    return table[roles[role]] if role in roles else None


def _refuse_nulls(ids: pa.ChunkedArray, table: str, role: str) -> None:
    if ids.null_count:
        row = pc.index(pc.is_null(ids), True).as_py()
        raise VitrineError(
            f"{ids.null_count} rows of {table} have no {role} (the first is row {row + 1}); "
            "remove or complete them."
        )


def _first(ids: pa.ChunkedArray | pa.Array) -> str:
    return ", ".join(str(value) for value in ids[:3].to_pylist())
