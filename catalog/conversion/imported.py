"""Converts a folder that `vitrine catalog import` wrote, batch by batch: it is sorted, and asks no decision.

Memory holds the ids of items and users, never a column of interactions.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from catalog.config import CatalogConfig
from catalog.conversion.files import HistoryFiles, TableFile
from catalog.conversion.interactions import Rows, build_histories, read_edges
from catalog.conversion.items import convert_items, plain_columns
from catalog.id_rows import IdRows
from catalog.importing.rows_display import counted
from catalog.importing.write import INTERACTIONS, ITEMS, MARK
from catalog.notes import CountedNotes, Notes
from catalog.reading.types import is_text
from catalog.roles import INTERACTION_ROLES, ITEM_ROLES, Roles, resolve_roles
from catalog.sources.base import RawTables
from catalog.values.dates import MICROSECONDS
from catalog.values.ids import read_ids
from catalog.values.paths import Finder

ITEM_ROWS = 65_536
"""Rows of items that are converted at once."""
HISTORY_ROWS = 2 << 20
"""Rows of interactions that are converted at once."""


def find_imported(raw: RawTables, config: CatalogConfig) -> "ImportedTables | None":
    """The tables of an imported folder; None for any other, and where the config decides anew."""
    paths = [path for path in raw.files if path.name in (ITEMS, INTERACTIONS)]
    roles = ITEM_ROLES.keys() | INTERACTION_ROLES.keys()
    given = (config.roles or {}).keys() & INTERACTION_ROLES.keys()
    if config.source != "folder" or config.min_rating is not None or given:
        return None
    if [path.name for path in paths] != [ITEMS, INTERACTIONS] or not roles <= raw.roles.keys():
        return None
    try:
        # Without reading ahead, which would hold the whole files.
        items, interactions = (parquet.ParquetFile(path, pre_buffer=False) for path in paths)
    except (OSError, pa.ArrowException):
        return None  # the reader says what is wrong
    schemas = [file.schema_arrow for file in (items, interactions)]
    if any(MARK.items() - (schema.metadata or {}).items() for schema in schemas):
        return None
    of_items, of_interactions = resolve_roles(
        schemas[0].names, schemas[1].names, [raw.roles, config.roles or {}]
    )
    if not (_are_plain(of_items, schemas[0]) and _are_plain(of_interactions, schemas[1])):
        return None
    return ImportedTables(raw, config, items, interactions, of_items, of_interactions)


def _are_plain(roles: Roles, schema: pa.Schema) -> bool:
    """Whether columns of roles have types that are read in one way, whatever a batch holds."""
    numbers = {"price": pa.types.is_floating, "rating": pa.types.is_floating}
    for role, column in roles.items():
        for name in column if isinstance(column, list) else [column]:
            kind = schema.field(name).type
            if role == "time":
                plain = pa.types.is_int64(kind) or pa.types.is_timestamp(kind)
            else:
                plain = numbers.get(role, is_text)(kind)
            if not plain:
                return False
    return True


def _of_all_batches(field: pa.Field) -> pa.Field:
    """The field with the type that its column has where HTML is removed from some batches alone."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind):
        return field.with_type(pa.large_string())
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type):
        return field.with_type(pa.large_list(pa.large_string()))
    return field.with_type(kind)


@dataclass(frozen=True)
class ImportedTables:
    """The tables of an imported folder."""

    raw: RawTables
    config: CatalogConfig
    items: parquet.ParquetFile
    interactions: parquet.ParquetFile
    item_roles: Roles
    roles: Roles

    def write_items(self, folder: Path) -> dict[str, Any]:
        """Writes the items into a folder of the cache; returns their metadata."""
        notes, finder = CountedNotes(), Finder(os.path.realpath(self.raw.folder))
        files = {name: TableFile(folder / f"{name}.arrow") for name in ("items", "columns")}
        batches = self.items.iter_batches(ITEM_ROWS)
        for batch in counted(batches, "items: converting", self.items.metadata.num_rows):
            roles = deepcopy(self.item_roles)
            columns = plain_columns(pa.Table.from_batches([batch]), roles, notes)
            columns = columns.cast(pa.schema([_of_all_batches(field) for field in columns.schema]))
            ids = read_ids(columns[roles["item_id"]], roles["item_id"], "items", notes)
            items = convert_items(columns, ids, roles, self.raw.folder, self.config, notes, finder)
            files["columns"].append(columns)
            files["items"].append(items)
        for file in files.values():
            file.close()
        found = Notes()
        notes.add_to(found)
        return {
            "roles": self.item_roles,
            "assigned": self.item_roles,
            "notes": found.as_json(),
        }

    def write_histories(self, folder: Path, item_ids: pa.ChunkedArray) -> dict[str, Any]:
        """Writes the histories into a folder of the cache; returns their metadata."""
        notes, roles = CountedNotes(), self.roles
        timed, rows_of = True, IdRows(item_ids)
        with HistoryFiles(folder) as files:
            for table in self._users(self._in_seconds()):
                rows = self._rows(table)
                histories = build_histories(
                    rows, roles, item_ids, self.raw.name, self.config, notes, rows_of
                )
                files.append(histories)
                timed = histories.has_timestamps
        if self._has_dates():  # the import said how it read them
            where = f"interactions: {roles['time']}"
            notes.listed = [note for note in notes.listed if note.where != where]
        found = self.raw.notes
        notes.add_to(found)
        if self.raw.read_edges is not None:
            edges = read_edges(self.raw.read_edges(), item_ids, self.raw.name, self.config, found)
            np.save(folder / "edges.npy", edges, allow_pickle=False)
        return {
            "roles": roles,
            "has_timestamps": timed,
            "num_dropped": 0,
            "notes": found.as_json(),
        }

    def _rows(self, table: pa.Table) -> Rows:
        """The interactions of a table, whose ids the import has cleaned."""
        users, ids = table[self.roles["user_id"]], table[self.roles["item_id"]]
        ratings = table[self.roles["rating"]] if "rating" in self.roles else None
        return Rows(table, users, ids, ratings)

    def _has_dates(self) -> bool:
        schema = self.interactions.schema_arrow
        return pa.types.is_timestamp(schema.field(self.roles["time"]).type)

    def _in_seconds(self) -> Iterator[pa.RecordBatch]:
        """The interactions; dates in seconds, or in microseconds where one has a fraction."""
        time = self.roles["time"]
        place = self.interactions.schema_arrow.names.index(time)
        is_date = self._has_dates()
        factor = 1
        if is_date:
            whole = True
            for batch in self.interactions.iter_batches(columns=[time]):
                ticks = batch.column(0).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
                whole = whole and not (ticks % MICROSECONDS).any()
            factor = MICROSECONDS if whole else 1
        for batch in self.interactions.iter_batches(ITEM_ROWS):
            if is_date:
                ticks = batch.column(place).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
                batch = batch.set_column(place, time, pa.array(ticks // factor))
            yield batch

    def _users(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Tables of about `HISTORY_ROWS` rows that hold users whole."""
        kept: list[pa.RecordBatch] = []
        rows = 0
        total = self.interactions.metadata.num_rows
        for batch in counted(batches, "interactions: converting", total):
            kept.append(batch)
            rows += batch.num_rows
            if rows >= HISTORY_ROWS:
                whole, kept = self._without_last_user(kept)
                rows = sum(batch.num_rows for batch in kept)
                if whole.num_rows:
                    yield whole
                del whole
        if kept:
            yield pa.Table.from_batches(kept)

    def _without_last_user(
        self, batches: list[pa.RecordBatch]
    ) -> tuple[pa.Table, list[pa.RecordBatch]]:
        """The rows of all users but the last, and those of the last, who may have more."""
        table = pa.Table.from_batches(batches)
        users = table[self.roles["user_id"]]
        begin = pc.index(users, users[-1]).as_py()
        return table.slice(0, begin), table.slice(begin).to_batches()
