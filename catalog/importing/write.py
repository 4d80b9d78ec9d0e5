"""Writes the tables of the imported folder: items, interactions and edges in parquet."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from catalog.columns import one_chunk
from catalog.errors import VitrineError
from catalog.importing.load import Reader
from catalog.importing.pictures import Pictures
from catalog.importing.rows_display import counted
from catalog.importing.store import Store
from catalog.importing.streams import Streams
from catalog.notes import Notes
from catalog.roles import Roles
from catalog.values.ids import read_ids
from catalog.values.names import ORDER_NAMES, plain_name

ITEMS, INTERACTIONS, EDGES = "items.parquet", "interactions.parquet", "edges.parquet"
MARK = {b"vitrine.import": b"1"}
"""Metadata of written tables: ids are clean and unique, interactions lie by user and time. A program that
writes a table anew leaves it out."""


@dataclass(frozen=True)
class ItemRows:
    """The rows of the source's items table."""

    ids: pa.ChunkedArray
    """(n,) large_string; null where a row has none"""
    written: NDArray[np.bool_]
    """(n,) whether the row is written"""
    prices: pa.ChunkedArray | None
    """(n,) float64, where the column of prices holds texts"""

    def written_ids(self) -> pa.ChunkedArray:
        return self.ids.filter(pa.array(self.written))


def write_items(
    streams: Streams, rows: ItemRows, roles: Roles, pictures: Pictures, path: Path
) -> Roles:
    """Writes the items with the source's own columns; returns the roles of the written ones."""
    names: dict[str, str] = {}
    ids = one_chunk(rows.ids)
    prices = None if rows.prices is None else one_chunk(rows.prices)
    start = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal start
        batches = streams.items(embedded=True)
        for batch in counted(batches, "items: writing", len(rows.written)):
            mask = pa.array(rows.written[start : start + batch.num_rows])
            own = ids.slice(start, batch.num_rows).filter(mask)
            price = None if prices is None else prices.slice(start, batch.num_rows).filter(mask)
            start += batch.num_rows
            batch = pictures.bring(batch.filter(mask), own)
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns[roles["item_id"]] = own
            if price is not None:
                columns[roles["price"]] = price
            names.update(_written_names(batch.schema.names, roles["item_id"]))
            yield pa.RecordBatch.from_arrays(
                list(columns.values()), [names[name] for name in columns]
            )

    _write(batches(), path)
    return {
        role: [names[name] for name in column] if isinstance(column, list) else names[column]
        for role, column in roles.items()
    }


def _written_names(columns: list[str], identity: str) -> dict[str, str]:
    """Column of the source → column of the written table, where ids are in the column item_id."""
    names = {name: name for name in columns}
    if identity != "item_id" and "item_id" in names:
        other = "other_item_id"
        while other in names:
            other += "_"
        names["item_id"] = other
    return names | {identity: "item_id"}


def write_interactions(
    store: Store, reader: Reader, item_ids: pa.ChunkedArray, path: Path
) -> Roles:
    """Writes the interactions by user and time; returns their roles.

    Users are in the order of their first interaction in the source, and interactions of a user at the
    same time in that of the source.
    """
    time, order, kind = _time_column(store, reader)
    roles: Roles = {"user_id": "user_id", "item_id": "item_id", "time": time}
    for role in ("rating", "review", "split"):
        roles[role] = role if role in reader.roles else None
    extra = [role for role in ("rating", "review", "split") if roles[role]]
    users = store.batches("SELECT user_id FROM users ORDER BY user")
    user_ids = pa.concat_arrays([batch.column(0).cast(pa.large_string()) for batch in users])
    known = one_chunk(item_ids)
    query = (
        f"SELECT user, item, {', '.join([f'{order} AS time', *extra])} FROM kept "
        "JOIN (SELECT user, min(row) AS first FROM kept GROUP BY user) USING (user) "
        "ORDER BY first, kept.time, kept.row"
    )
    if reader.times is None:
        query = query.replace("kept.time, ", "")

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in counted(store.batches(query), "interactions: writing", store.num_kept):
            columns = [
                user_ids.take(batch.column("user")),
                known.take(batch.column("item")),
                batch.column("time").cast(kind),
                *(batch.column(role) for role in extra),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["user_id", "item_id", time, *extra])

    _write(batches(), path)
    return roles


def _time_column(store: Store, reader: Reader) -> tuple[str, str, pa.DataType]:
    """Name of the column of times, how it is computed, and its type.

    Times that only number each user's interactions are in a column `position`. Without times the order
    of the source's rows is written, as times where rows of different users alternate.
    """
    if reader.times is not None:
        if plain_name(reader.times.name) in ORDER_NAMES:
            return "position", "kept.time", pa.int64()
        return "time", "kept.time", pa.timestamp("us") if reader.times.is_date else pa.int64()
    first = store.number("SELECT min(row) FROM kept")
    changes, last = 0, -1
    for batch in store.batches("SELECT user FROM kept ORDER BY row"):
        users = batch.column(0).to_numpy()
        changes += int(np.count_nonzero(np.diff(users))) + int(last not in (-1, users[0]))
        last = int(users[-1])
    num_users = store.number("SELECT count(DISTINCT user) FROM kept")
    name = "time" if changes != num_users - 1 else "position"
    return name, f"kept.row - {first}", pa.int64()


def write_edges(streams: Streams, rows: ItemRows, unknown: str, path: Path, notes: Notes) -> None:
    """Writes the links between items that are written; VitrineError for items that the items lack."""
    if streams.raw.read_edges is None:
        return
    table = streams.raw.read_edges()
    if table.num_columns < 2:
        raise VitrineError(
            f"the edges of {streams.raw.name} need two columns, the ids of the linked items."
        )
    ends = [
        read_ids(table[place], table.column_names[place], "edges", notes).cast(pa.large_string())
        for place in (0, 1)
    ]
    named = [pc.or_(pc.is_null(end), pc.is_in(end, value_set=rows.ids)) for end in ends]
    missing = [end.filter(pc.invert(one)) for end, one in zip(ends, named, strict=True)]
    chunks = [chunk for one in missing for chunk in one.chunks]
    lacking = pc.unique(pa.chunked_array(chunks, pa.large_string()))
    if len(lacking) and unknown == "error":
        first = ", ".join(lacking[:3].to_pylist())
        raise VitrineError(
            f"the edges of {streams.raw.name} name {len(lacking)} items the items table lacks "
            f"({first}); add them, or set unknown_items: drop."
        )
    good = pc.and_(*(pc.is_in(end, value_set=rows.written_ids()) for end in ends))
    good = pc.and_(good, pc.and_(*(pc.is_valid(end) for end in ends)))
    dropped = table.num_rows - (pc.sum(good).as_py() or 0)
    if dropped:
        what = f"{dropped} of {table.num_rows} links name an item that is not written"
        notes.add("edges", what, "dropped", count=dropped)
    written = pa.table({"item_id": ends[0], "linked_id": ends[1]}).filter(good)
    parquet.write_table(written, path, compression="zstd")


def _write(batches: Iterator[pa.RecordBatch], path: Path) -> None:
    writer: parquet.ParquetWriter | None = None
    try:
        for batch in batches:
            if writer is None:
                schema = batch.schema.with_metadata(MARK)
                writer = parquet.ParquetWriter(path, schema, compression="zstd")
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
