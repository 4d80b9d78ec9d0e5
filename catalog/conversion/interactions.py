"""Aligns a table of interactions with a catalog's items: histories by user, time and the tie rule."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.config import CatalogConfig
from catalog.conversion.items import first_ids, optional_numbers, optional_text
from catalog.errors import VitrineError
from catalog.hashing import hash_ids, splitmix64
from catalog.id_rows import IdRows
from catalog.notes import Notes
from catalog.roles import Roles
from catalog.values.dates import read_times
from catalog.values.html import without_html
from catalog.values.ids import match_hint, note_without_id, read_ids
from catalog.values.names import ORDER_NAMES, plain_name
from catalog.values.numbers import read_numbers

TIES_KEY = b"vitrine ties"
"""Key of the hashes that shuffle interactions at the same time."""


@dataclass(frozen=True)
class Histories:
    """Histories of users, end to end."""

    user_ids: pa.Array
    """(num_users,), in the order of their first interaction in the file."""
    counts: NDArray[np.int64]
    """(num_users,): interactions of each."""
    item_rows: NDArray[np.int32]
    """(num_interactions,)"""
    times: NDArray[np.int64]
    """(num_interactions,)"""
    ratings: NDArray[np.float32] | None
    """(num_interactions,)"""
    reviews: pa.ChunkedArray | None
    """(num_interactions,)"""
    split_labels: pa.ChunkedArray | None
    """(num_interactions,): the subset of each, as the table names it."""
    has_timestamps: bool
    """False where times only order each user's own items."""
    num_dropped: int
    """Interactions left out because they name unknown items."""


def build_histories(
    rows: "Rows",
    roles: Roles,
    item_ids: pa.ChunkedArray,
    name: str,
    config: CatalogConfig,
    notes: Notes,
    rows_of: IdRows | None = None,
) -> Histories:
    """The histories of the interactions `rows`. Raises VitrineError as `convert`.

    A role whose column has no text form is removed from `roles`, and noted. `rows_of`: finds `item_ids`,
    where several tables ask for them.
    """
    rows, item_rows = _keep_known(rows, item_ids, rows_of or IdRows(item_ids), name, config)
    user_ids = pc.unique(rows.users)
    user_rows = pc.index_in(rows.users, value_set=user_ids).to_numpy().astype(np.int32)
    timed, times = _times(rows.table, roles, user_rows, len(user_ids), config, notes)
    order = _order(times, user_rows, item_rows, user_ids, item_ids, config)
    places = pa.array(order)
    reviews = optional_text(rows.table, roles, "review", "interactions", notes)
    if reviews is not None:
        reviews = without_html(reviews, f"interactions: {roles['review']}", notes)
    given = optional_text(rows.table, roles, "split", "interactions", notes)
    return Histories(
        user_ids=user_ids,
        counts=np.bincount(user_rows, minlength=len(user_ids)),
        item_rows=item_rows[order],
        times=times[order],
        ratings=None if rows.ratings is None else rows.ratings.to_numpy().astype(np.float32)[order],
        reviews=None if reviews is None else reviews.take(places),
        split_labels=None if given is None else given.take(places),
        has_timestamps=timed,
        num_dropped=rows.num_dropped,
    )


@dataclass(frozen=True)
class Rows:
    """Interactions in the file's order."""

    table: pa.Table
    users: pa.ChunkedArray
    """(table.num_rows,)"""
    ids: pa.ChunkedArray
    """(table.num_rows,): of items"""
    ratings: pa.ChunkedArray | None
    """(table.num_rows,)"""
    num_dropped: int = 0
    """Rows left out because they name unknown items."""

    def filter(self, mask: pa.ChunkedArray) -> "Rows":
        ratings = None if self.ratings is None else self.ratings.filter(mask)
        return Rows(
            self.table.filter(mask), self.users.filter(mask), self.ids.filter(mask), ratings
        )


def read_rows(
    table: pa.Table, roles: Roles, name: str, config: CatalogConfig, notes: Notes
) -> Rows:
    """The interactions with a sufficient rating, a user and an item."""
    table, ratings = _read_ratings(table, roles, name, config, notes)
    columns = {}
    for role in ("user_id", "item_id"):
        columns[role] = read_ids(table[roles[role]], roles[role], "interactions", notes)
    rows = Rows(table, columns["user_id"], columns["item_id"], ratings)
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
        return table, optional_numbers(table, roles, "rating", "interactions", notes, how)
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
        distinct, places = np.unique(item_rows, return_inverse=True)
        ids = item_ids.take(pa.array(distinct)).to_pylist()
        items_hash = hash_ids(ids, key=TIES_KEY)[places]
        keys.insert(0, splitmix64(users_hash ^ splitmix64(items_hash)))
    return np.lexsort(keys)  # stable: ties keep the file's order


def _keep_known(
    rows: Rows, item_ids: pa.ChunkedArray, rows_of: IdRows, name: str, config: CatalogConfig
) -> tuple[Rows, NDArray[np.int32]]:
    """The interactions with a known item, and the rows of these in the items table."""
    item_rows = rows_of(rows.ids)
    known = item_rows >= 0
    if known.all():
        return rows, item_rows
    ids, num_unknown = rows.ids, int((~known).sum())
    distinct = pc.unique(ids.filter(pa.array(~known)))
    if config.unknown_items == "error":
        raise VitrineError(
            f"{num_unknown} of {len(ids)} interactions name {len(distinct)} items the items table "
            f"lacks ({first_ids(distinct)}); {match_hint(distinct, item_ids)}add them, or set "
            "unknown_items: drop."
        )
    if num_unknown == len(ids):
        raise VitrineError(
            f"no interaction of {name} names a known item ({first_ids(distinct)} … against "
            f"{first_ids(item_ids)} …); {match_hint(distinct, item_ids)}check the roles of "
            "both item_id columns."
        )
    kept = replace(rows.filter(pa.chunked_array([pa.array(known)])), num_dropped=num_unknown)
    return kept, item_rows[known]


def read_edges(
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
                f"({first_ids(unknown)}); add them, or set unknown_items: drop."
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
