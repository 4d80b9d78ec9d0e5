"""Streams a source's tables in batches, and assigns roles to their columns by parts of them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.importing.pictures import described
from catalog.roles import Roles, resolve_roles
from catalog.sources import RawTables
from catalog.values.names import ITEM_ROLES, plain_name

HEAD = 200_000
"""First rows of a table whose columns are all kept in memory."""
WHOLE = ("item_id", "price")
"""Roles of items whose columns are kept in memory whole."""
Batches = Callable[[], Iterator[pa.RecordBatch]]


@dataclass
class Streams:
    """The tables of a source in batches, each column name once; they can be read again and again."""

    raw: RawTables
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """Tables of a source that reads them whole, by name."""

    def items(self, *, embedded: bool = False) -> Iterator[pa.RecordBatch]:
        """`embedded`: with pictures inside the table, else with texts that stand for them."""
        for batch in self._read("items", self.raw.item_batches, self.raw.read_items):
            yield batch if embedded else described(batch)

    def interactions(self) -> Iterator[pa.RecordBatch]:
        yield from self._read(
            "interactions", self.raw.interaction_batches, self.raw.read_interactions
        )

    def _read(
        self, name: str, batches: Batches | None, whole: Callable[[], pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        if batches is None and name not in self.tables:
            self.tables[name] = whole()
        for batch in batches() if batches else self.tables[name].to_batches(1 << 18):
            names = batch.schema.names
            first = [place for place, one in enumerate(names) if names.index(one) == place]
            if batch.num_rows:
                one = batch.select(first)
                yield one.replace_schema_metadata(None)


def survey_items(streams: Streams, config: CatalogConfig) -> pa.Table:
    """The items table: columns that may hold ids or prices whole, of others the first rows.

    The remaining values are null, and take no memory.
    """
    roles = streams.raw.roles | (config.roles or {})
    usual = {plain_name(name) for role in WHOLE for name in ITEM_ROLES[role]}
    given = {roles.get(role) for role in WHOLE}
    blanks: dict[tuple[str, int], pa.Array] = {}
    batches: list[pa.RecordBatch] = []
    seen = 0
    for batch in streams.items():
        if seen >= HEAD:
            columns = []
            for column, name in zip(batch.columns, batch.schema.names, strict=True):
                if name not in given and plain_name(name) not in usual:
                    key = (name, batch.num_rows)
                    if key not in blanks:
                        blanks[key] = pa.nulls(batch.num_rows, column.type)
                    column = blanks[key]
                columns.append(column)
            batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        batches.append(batch)
        seen += batch.num_rows
    if not batches:
        raise VitrineError(f"the catalog {streams.raw.name} has no items; the table holds no rows.")
    return pa.Table.from_batches(batches)


def head_of_interactions(streams: Streams) -> pa.Table:
    """The first rows of the interactions."""
    batches: list[pa.RecordBatch] = []
    for batch in streams.interactions():
        batches.append(batch)
        if sum(one.num_rows for one in batches) >= HEAD:
            break
    if not batches:
        raise VitrineError(
            f"the catalog {streams.raw.name} has no interactions; the table holds no rows."
        )
    return pa.Table.from_batches(batches)


def assign_roles(
    streams: Streams, items: pa.Table, interactions: pa.Table, config: CatalogConfig
) -> tuple[Roles, Roles]:
    """The roles of items and of interactions (see `resolve_roles`); `items` is their survey."""
    return resolve_roles(
        items.column_names,
        interactions.column_names,
        [streams.raw.roles, config.roles or {}],
        (items, interactions),
        streams.raw.notes,
    )
