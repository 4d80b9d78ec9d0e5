"""What the cache holds: how large each entry is, when it was last used, and which ones may go."""

import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalog.cache import cache_folder
from catalog.errors import VitrineError, did_you_mean

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
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
AGES = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


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


def parse_size(text: str, name: str) -> int:
    """Bytes of a text such as 500MB or 1.5 GiB; VitrineError if it is none. `name`: of the setting."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = (found[2] or "B").upper() if found else ""
    if not found or unit not in UNITS:
        raise VitrineError(
            f"{name} is {text!r}, which is no size; write it as 500MB, 20GB or 1TiB."
        )
    return round(float(found[1]) * UNITS[unit])


def parse_age(text: str, name: str) -> float:
    """Seconds of a text such as 12h or 30d; VitrineError if it is none. `name`: of the setting."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw])\s*", text)
    if not found:
        raise VitrineError(f"{name} is {text!r}, which is no age; write it as 90m, 12h, 30d or 8w.")
    return float(found[1]) * AGES[found[2]]


def format_size(size: int) -> str:
    """Bytes in a unit that leaves up to four digits: 1.5 GB."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


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
