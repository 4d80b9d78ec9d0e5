"""Remembers what became of every address: a log that is only appended to, and an index of it.

The log is JSON lines beside the pictures; the index is a temporary database, so that memory does not
grow with the number of addresses.
"""

import errno
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from catalog.atomic_write import fsync_folder
from catalog.errors import VitrineError
from catalog.fetching.download import Outcome
from catalog.picture_types import PICTURE_SUFFIXES

LOG, LOCK, INDEX = "log.jsonl", "lock", "index.sqlite"
BATCH = 64
"""Lines after which the log is flushed to the disk."""
SECONDS = 5.0
"""Seconds after which it is flushed however few lines there are."""
HOST_BATCH = 64
"""Addresses of one host that are read from the index at once."""
TABLE = """
CREATE TABLE pictures (
    key TEXT PRIMARY KEY, url TEXT, host TEXT, wanted INTEGER DEFAULT 0, items INTEGER DEFAULT 0,
    suffix TEXT DEFAULT '', reason TEXT DEFAULT '', transient INTEGER DEFAULT 0
) WITHOUT ROWID
"""


def picture_key(url: str) -> str:
    """The name of a picture's file, without suffix: a hash of its address."""
    return hashlib.sha256(url.encode("utf8", "surrogatepass")).hexdigest()[:40]


def picture_path(key: str, suffix: str) -> str:
    """Path of a picture below the folder of pictures; 256 folders share them."""
    return f"{key[:2]}/{key}.{suffix}" if suffix else f"{key[:2]}/{key}"


class FetchLog:
    """Addresses and what became of them, in this run and in earlier ones into the same folder."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the folder; VitrineError where it holds other files, or is in use."""
        self.folder = folder
        others = folder.exists() and {path.name for path in folder.iterdir()} - {LOCK, INDEX}
        if others and not (folder / LOG).is_file():
            raise VitrineError(
                f"{folder} holds files that are no fetched pictures; move it away, or choose another "
                "output."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise VitrineError(
                f"another process fetches pictures into {folder}; let it end, or choose another "
                "output."
            ) from error
        self._unflushed, self._flushed = 0, time.monotonic()
        (folder / INDEX).unlink(missing_ok=True)
        self._index = sqlite3.connect(folder / INDEX, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._run(f"PRAGMA {setting}")
        self._run(TABLE)
        self._file = (folder / LOG).open("ab+")
        try:
            self._read()
            self._run("CREATE INDEX hosts ON pictures (host, wanted, suffix, reason)")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Flushes the log, and lets other processes use the folder."""
        self.flush()
        self._file.close()
        self._index.close()
        (self.folder / INDEX).unlink(missing_ok=True)
        self._lock.release()

    def _read(self) -> None:
        """Indexes the log; cuts off a line that was not written to its end."""
        self._run_many(
            "INSERT OR REPLACE INTO pictures (key, url, host, suffix, reason, transient) "
            "VALUES (?, ?, '', ?, ?, ?)",
            (row for line in self._lines() for row in _rows_of(line, self.folder)),
        )
        self._file.seek(0, os.SEEK_END)

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            end += len(line)
            yield line

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer, which is short."""
        with _disk_errors(self.folder):
            return self._index.execute(sql, values).fetchall()

    def _run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _disk_errors(self.folder):
            self._index.execute("BEGIN")
            self._index.executemany(sql, rows)
            self._index.execute("COMMIT")

    def want(self, urls: Iterable[tuple[str, str, str]]) -> None:
        """Adds addresses that this import needs: (address, host, reason), a reason where it is refused.

        Addresses that failed for a time in an earlier run are to be fetched again.
        """
        self._run_many(
            "INSERT INTO pictures (key, url, host, reason, wanted, items) VALUES (?, ?, ?, ?, 1, 1) "
            "ON CONFLICT (key) DO UPDATE SET wanted = 1, host = excluded.host, items = items + 1, "
            "reason = CASE WHEN transient AND NOT wanted THEN '' ELSE reason END",
            ((picture_key(url), url, host, reason) for url, host, reason in urls),
        )

    @property
    def num_left(self) -> int:
        """Addresses that are to be fetched."""
        query = "SELECT count(*) FROM pictures WHERE wanted AND suffix = '' AND reason = ''"
        return self._run(query)[0][0]

    def hosts(self) -> Iterator[str]:
        """Hosts of addresses to be fetched, those with most first."""
        yield from (
            row[0]
            for row in self._run(
                "SELECT host FROM pictures WHERE wanted AND suffix = '' AND reason = '' "
                "GROUP BY host ORDER BY count(*) DESC, host"
            )
        )

    def urls_of(self, host: str) -> Iterator[tuple[str, str]]:
        """(key, address) of a host that are to be fetched, in the order of their keys."""
        after = ""
        while True:
            rows = self._run(
                "SELECT key, url FROM pictures WHERE host = ? AND wanted AND suffix = '' "
                "AND reason = '' AND key > ? ORDER BY key LIMIT ?",
                (host, after, HOST_BATCH),
            )
            if not rows:
                return
            yield from rows
            after = rows[-1][0]

    def put(self, key: str, url: str, outcome: Outcome) -> None:
        """Records what became of an address."""
        line: dict[str, Any] = {"url": url}
        if outcome.suffix:
            line |= {"file": picture_path(key, outcome.suffix), "sha256": outcome.sha256}
            line |= {"bytes": outcome.num_bytes}
        else:
            line |= {"reason": outcome.reason, "transient": outcome.is_transient}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._unflushed += 1
        if self._unflushed >= BATCH or time.monotonic() - self._flushed > SECONDS:
            self.flush()
        self._run(
            "UPDATE pictures SET suffix = ?, reason = ?, transient = ? WHERE key = ?",
            (outcome.suffix, outcome.reason, outcome.is_transient, key),
        )

    def flush(self) -> None:
        """Writes the log to the disk."""
        if self._unflushed:
            self._file.flush()
            os.fsync(self._file.fileno())
            fsync_folder(self.folder)
        self._unflushed, self._flushed = 0, time.monotonic()

    def file_of(self, url: str) -> Path | None:
        """The file of an address; None where it was not fetched."""
        key = picture_key(url)
        query = "SELECT suffix FROM pictures WHERE key = ? AND wanted AND suffix <> ''"
        found = self._run(query, (key,))
        return self.folder / picture_path(key, found[0][0]) if found else None

    def counts(self) -> list[tuple[str, bool, int, int]]:
        """(reason, whether it may pass, addresses, items) of those needed; the reason of files is ""."""
        return self._run(
            "SELECT reason, transient, count(*), sum(items) FROM pictures WHERE wanted "
            "GROUP BY reason, transient ORDER BY count(*) DESC, reason"
        )

    def examples(self, reason: str, number: int) -> list[str]:
        """The first addresses, by key, that were not fetched for a reason."""
        query = "SELECT url FROM pictures WHERE wanted AND reason = ? ORDER BY key LIMIT ?"
        return [row[0] for row in self._run(query, (reason, number))]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns errors of the index into those of the disk that it lies on."""
    try:
        yield
    except sqlite3.Error as error:
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), str(folder)) from error


def _rows_of(line: bytes, folder: Path) -> Iterator[tuple[str, str, str, str, bool]]:
    """A line of the log for the index: none where it is damaged, or its file is not there any more."""
    try:
        entry = json.loads(line)
        url = entry["url"]
        key = picture_key(url)
        if "file" in entry:
            suffix = entry["file"].rpartition(".")[2]
            path = folder / picture_path(key, suffix)
            if suffix in PICTURE_SUFFIXES and path.stat().st_size == entry["bytes"]:
                yield key, url, suffix, "", False
        else:
            yield key, url, "", str(entry["reason"]), bool(entry["transient"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return
