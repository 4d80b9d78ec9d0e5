"""Reads the interactions twice: to decide how values are read, then into the database."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.atomic_write import signal_progress
from catalog.columns import as_text
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.importing.ratings import RatingColumn
from catalog.importing.rows_display import counted
from catalog.importing.store import Store
from catalog.importing.streams import Streams
from catalog.importing.times import TimeColumn
from catalog.notes import EXAMPLES, Notes
from catalog.roles import Roles
from catalog.values.ids import is_text, read_ids

KINDS = {"time": "BIGINT", "rating": "DOUBLE", "review": "VARCHAR", "split": "VARCHAR"}
"""Optional columns of the database, and their types."""


@dataclass
class Reader:
    """How each column of the interactions is read, batch by batch."""

    roles: Roles
    """Role → column; a role whose column has no text or number is removed."""
    config: CatalogConfig
    notes: Notes
    num_rows: int = 0
    """Rows of the source; known from `survey` on."""
    times: TimeColumn | None = None
    ratings: RatingColumn | None = None
    trimmed: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    """Role of ids → how many had blanks at their ends, and the first of them."""

    def survey(self, streams: Streams) -> None:
        """Reads all interactions once and decides; VitrineError for what the user must correct."""
        if "time" in self.roles:
            self.times = TimeColumn(self.roles["time"], self.config.dates, self.notes)
        if "rating" in self.roles:
            self.ratings = RatingColumn(self.roles["rating"], self.config.decimal, self.notes)
        names: list[str] = []
        for batch in counted(streams.interactions(), "interactions: reading"):
            names = batch.schema.names
            self.num_rows += batch.num_rows
            if self.times:
                self.times.survey(_column(batch, self.roles["time"]))
            for role in ("rating", "review", "split"):
                if role in self.roles:
                    self._survey_optional(role, batch)
        if self.times:
            self.times.decide()
        if self.ratings:
            self._or_without("rating", self.ratings.decide)
            self.ratings = self.ratings if "rating" in self.roles else None
        unused = [name for name in names if name not in self.roles.values()]
        if unused:
            what = f"{len(unused)} columns have no role and are not written"
            remedy = "name a column with roles if it is needed"
            self.notes.add("interactions", what, examples=unused, remedy=remedy)

    def _survey_optional(self, role: str, batch: pa.RecordBatch) -> None:
        column = _column(batch, self.roles[role])
        if role == "rating" and self.ratings:
            ratings = self.ratings
            self._or_without(role, lambda: ratings.survey(column))
        elif not is_text(column):
            self._or_without(role, lambda: as_text(pa.chunked_array([column]), role))

    def _or_without(self, role: str, read: Callable[[], Any]) -> None:
        """Removes a role whose column cannot be read, and notes it."""
        try:
            read()
        except VitrineError as error:
            where = f"interactions: {self.roles.pop(role)}"
            self.notes.add(where, f"is left out as {role}: {error}")

    def load(self, streams: Streams, store: Store) -> None:
        """Fills the table `kept`: row, user_id, item_id, and the optional columns there are.

        Goes on behind the rows that the table `loading` says an interrupted import has stored.
        """
        extra = [role for role in KINDS if role in self.roles]
        if not store.has_table("loading"):
            columns = "".join(f", {role} {KINDS[role]}" for role in extra)
            store.run(f"CREATE TABLE kept (row BIGINT, user_id VARCHAR, item_id VARCHAR{columns})")
            store.run("CREATE TABLE loading AS SELECT 0::BIGINT AS rows, '{}' AS trimmed")
        row, self.trimmed = self._loaded(store)
        if not store.is_loaded:
            batches = skip_rows(streams.interactions(), row)
            for batch in counted(batches, "interactions: storing", self.num_rows - row):
                rows = {"row": pa.array(np.arange(row, row + batch.num_rows))}
                for role in ("user_id", "item_id"):
                    rows[role] = self._ids(role, batch)
                for role in extra:
                    rows[role] = self._optional(role, _column(batch, self.roles[role]))
                row += batch.num_rows
                with store.transaction():
                    store.insert("kept", pa.table(rows))
                    progress = [row, json.dumps(self.trimmed)]
                    store.run("UPDATE loading SET rows = ?, trimmed = ?", progress)
            store.keep_loaded()
            signal_progress()
        store.num_kept = row
        for role, (count, examples) in self.trimmed.items():
            what = f"blanks at the ends of {count} ids are removed"
            where = f"interactions: {self.roles[role]}"
            self.notes.add(where, what, count=count, examples=examples)

    def _loaded(self, store: Store) -> tuple[int, dict[str, tuple[int, list[str]]]]:
        """Rows that are stored already, and the blanks that were removed from their ids."""
        ((rows, trimmed),) = store.rows("SELECT rows, trimmed FROM loading")
        return rows, {role: tuple(found) for role, found in json.loads(trimmed).items()}

    def _ids(self, role: str, batch: pa.RecordBatch) -> pa.ChunkedArray:
        given = pa.chunked_array([_column(batch, self.roles[role])])
        ids = read_ids(given, self.roles[role], "interactions", Notes())
        if is_text(given):
            changed = pc.and_(pc.is_valid(ids), pc.not_equal(given.cast(pa.large_string()), ids))
            if count := pc.sum(changed).as_py():
                before, examples = self.trimmed.get(role, (0, []))
                examples = [*examples, *given.filter(changed)[:EXAMPLES].to_pylist()][:EXAMPLES]
                self.trimmed[role] = before + count, examples
        return ids

    def _optional(self, role: str, column: pa.Array) -> pa.Array | pa.ChunkedArray:
        if role == "time" and self.times:
            return self.times.read(column)
        if role == "rating" and self.ratings:
            return self.ratings.read(column)
        return as_text(pa.chunked_array([column]), role)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.names.index(name))


def skip_rows(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The batches without so many first rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)
