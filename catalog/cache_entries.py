"""What the cache holds: how large each entry is, when it was last used, and which ones may go."""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalog.cache import cache_folder
from catalog.errors import VitrineError, did_you_mean
from catalog.sizes import parse_size

KINDS = {
    "catalogs": "converted tables of catalogs",
    "media": "decoded images, audio and video",
    "towers": "features of frozen towers",
    "features": "vectors read from parquet",
    "duplicates": "items that are listed twice",
    "hashes": "sha256 of large tables",
}
"""Folder in the cache → what its entries are; all are made again when they are needed."""
IN_USE_SECONDS = 3600.0
"""An entry that was used so lately is kept, as a run may be about to open it."""
LIMIT = "VITRINE_CACHE_LIMIT"
"""Environment variable: size above which the entries that were not used for longest are removed."""


@dataclass(frozen=True)
class CacheEntry:
    kind: str
    path: Path
    size: int
    """Bytes on disk."""
    used: float
    """When it was last opened, in seconds since 1970."""


def list_entries(kinds: Iterable[str] = ()) -> list[CacheEntry]:
    """The entries of these kinds, by default of all; those that were not used for longest first.

    Raises VitrineError for an unknown kind.
    """
    chosen = list(kinds) or list(KINDS)
    for kind in chosen:
        if kind not in KINDS:
            raise VitrineError(
                f"the cache has no kind {kind!r}; its kinds: {', '.join(KINDS)}."
                f"{did_you_mean(kind, KINDS)}"
            )
    found = []
    for kind in chosen:
        folder = cache_folder() / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            try:
                found.append(CacheEntry(kind, path, _size(path), path.stat().st_mtime))
            except FileNotFoundError:  # removed meanwhile
                continue
    return sorted(found, key=lambda entry: (entry.used, str(entry.path)))


def mark_used(path: Path) -> None:
    """Notes that an entry, a file or a folder, is in use now."""
    try:
        os.utime(path)
    except OSError:  # of another user, or on a disk that cannot be written: it is pruned sooner
        return


def prune_entries(
    max_size: int | None = None,
    min_age: float | None = None,
    kinds: Iterable[str] = (),
    *,
    dry_run: bool = False,
) -> list[CacheEntry]:
    """Removes entries that were not used for `min_age` seconds, and then those that were not used for
    longest, until the rest has at most `max_size` bytes; returns them. Without either, removes all.

    Entries in use within `IN_USE_SECONDS` stay. `dry_run` removes nothing.
    """
    entries = list_entries(kinds)
    now, total = time.time(), sum(entry.size for entry in entries)
    removed = []
    for entry in entries:
        age = now - entry.used
        is_old = min_age is not None and age >= min_age
        is_over = max_size is not None and total > max_size
        everything = max_size is None and min_age is None
        if age < IN_USE_SECONDS or not (is_old or is_over or everything):
            continue
        if not dry_run:
            _remove(entry.path)
        total -= entry.size
        removed.append(entry)
    return removed


def keep_within_limit() -> None:
    """Prunes the cache to the size that $VITRINE_CACHE_LIMIT gives, such as 50GB; without it nothing.

    Raises VitrineError where it is no size.
    """
    limit = os.environ.get(LIMIT)
    if limit:
        prune_entries(parse_size(limit, f"${LIMIT}"))


def _size(path: Path) -> int:
    files = (inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]
    return sum(inner.stat().st_blocks * 512 for inner in files)


def _remove(path: Path) -> None:
    """Removes an entry; whoever opens it meanwhile finds all of it or nothing."""
    aside = path.with_name(f".{path.name}.removed-{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
