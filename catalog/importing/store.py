"""Interactions in a database on disk: sorted and filtered there, however many they are."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from catalog.atomic_write import replace_file
from catalog.errors import VitrineError, one_line_message

MEMORY = "800MB"
"""Memory that the database may use; what does not fit goes to its folder."""
THREADS = 4
"""Most threads: each needs memory of its own."""
DISK_FULL = ("No space left on device", "max_temp_directory_size", "Disk quota exceeded")
FEW, MOST_DELETED = 4, 2_000_000
"""One of so many rows, or fewer, and no more than these, are deleted in place; otherwise the rest is copied:
what is deleted is held in memory until it is written."""


DATABASE, LOADED = "interactions.duckdb", "loaded.duckdb"
"""The database, and what it was when all interactions were in it and no filter had run."""


class Store:
    """The database of one import. Its table `kept` holds the interactions that no filter dropped."""

    def __init__(self, folder: Path) -> None:
        """Opens the database in `folder`: a new one, or that of an import which was interrupted."""
        self.folder = folder
        self.num_kept = 0
        """Rows of `kept`."""
        self.dropped: dict[str, int] = {}
        """Why interactions were dropped → how many, in the order of the filters."""
        self.is_loaded = (folder / LOADED).exists()
        """Whether all interactions are in `kept` already."""
        if self.is_loaded:
            (folder / f"{DATABASE}.wal").unlink(missing_ok=True)
            shutil.copyfile(folder / LOADED, folder / DATABASE)
        self._open()

    def _open(self) -> None:
        folder = self.folder
        with self._refusing():
            self.database = duckdb.connect(str(folder / DATABASE))
        for setting in (
            f"memory_limit = '{MEMORY}'",
            f"threads = {min(THREADS, os.cpu_count() or 1)}",
            f"temp_directory = '{str(folder / 'spilled').replace(chr(39), chr(39) * 2)}'",
            "preserve_insertion_order = false",
            "enable_progress_bar = false",
            "TimeZone = 'UTC'",
        ):
            self.run(f"SET {setting}")

    def close(self) -> None:
        self.database.close()

    def keep_loaded(self) -> None:
        """Keeps a copy of the database with all interactions: an interrupted import goes on from there."""
        self.run("CHECKPOINT")
        self.close()
        partial = self.folder / f"{LOADED}.partial"
        shutil.copyfile(self.folder / DATABASE, partial)
        replace_file(partial, self.folder / LOADED)
        self._open()
        self.is_loaded = True

    def has_table(self, name: str) -> bool:
        found = "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?"
        return bool(self.number(found, [name]))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that the block changes, or nothing."""
        self.run("BEGIN")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.run("COMMIT")

    def run(self, sql: str, parameters: list[Any] | None = None) -> None:
        with self._refusing():
            self.database.execute(sql, parameters)

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a query with a short answer."""
        with self._refusing():
            return self.database.execute(sql, parameters).fetchall()

    def number(self, sql: str, parameters: list[Any] | None = None) -> int:
        """The only value of a query."""
        return self.rows(sql, parameters)[0][0] or 0

    def batches(self, sql: str, rows: int = 1 << 18) -> Iterator[pa.RecordBatch]:
        """The answer of a query in batches, in memory that does not grow with it."""
        with self._refusing():
            answer: Any = self.database.cursor().sql(sql)
            read = getattr(answer, "to_arrow_reader", None) or answer.fetch_arrow_reader
            yield from read(rows)

    def insert(self, table: str, rows: pa.Table) -> None:
        """Appends rows to a table of the same columns."""
        self.query(rows, f"INSERT INTO {table} SELECT * FROM given")

    def query(self, given: pa.Table, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query with a short answer, which may read a table in memory as `given`."""
        with self._refusing():
            self.database.register("given", given)
            try:
                return self.database.execute(sql).fetchall()
            finally:
                self.database.unregister("given")

    def replace(self, table: str, query: str) -> None:
        """Fills a table with the answer of a query, which may read the table."""
        self.run(f"CREATE TABLE replaced AS {query}")
        self.run(f"DROP TABLE IF EXISTS {table}")
        self.run(f"ALTER TABLE replaced RENAME TO {table}")
        self.run("CHECKPOINT")

    def drop(self, condition: str, reason: str, count: int | None = None) -> int:
        """Drops the interactions of `kept` that fulfil a condition, counts and returns them.

        VitrineError where none is left.
        """
        if count is None:
            count = self.number(f"SELECT count(*) FROM kept WHERE {condition}")
        self.count(reason, count)
        if count == self.num_kept:
            raise VitrineError(
                f"no interaction is left: the last {count:,} were dropped ({reason}); loosen the "
                "filters."
            )
        if 0 < count <= min(self.num_kept / FEW, MOST_DELETED):
            self.run(f"DELETE FROM kept WHERE {condition}")
        elif count:
            self.replace("kept", f"SELECT * FROM kept WHERE NOT ({condition})")
        self.num_kept -= count
        return count

    def count(self, reason: str, count: int) -> None:
        """Counts dropped interactions under a reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turns errors of the database into one line; a full disk into OSError."""
        try:
            yield
        except duckdb.Error as error:
            text = one_line_message(error, 10_000)
            if any(mark in text for mark in DISK_FULL):
                place = str(self.folder.parent.parent)
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
                raise full from error
            raise VitrineError(
                f"the interactions cannot be sorted in {self.folder.parent}: "
                f"{one_line_message(error)}"
            ) from error
