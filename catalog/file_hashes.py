"""sha256 of large files, kept in the cache: a table of many gigabytes is read once, not at every start."""

import hashlib
import json
import os
import time
from pathlib import Path

from catalog.atomic_write import replace_file
from catalog.cache import cache_folder
from catalog.checksums import file_sha256

LARGE = 16 << 20
"""Bytes from which a file's hash is kept; smaller files are read each time."""
TRUSTED_SECONDS = 7 * 86_400
"""Age after which a file is read again, as disks decay without changing a file's time."""
SETTLED_SECONDS = 2.0
"""A file changed later than this before it was hashed may change again within its clock's tick."""


def known_sha256(path: Path) -> str:
    """sha256 of a file; of a large one from the cache where its place, size and times are as they were."""
    known = recall_sha256(path)
    if known is None:
        at = time.time()
        known = file_sha256(path)
        remember_sha256(path, known, at)
    return known


def recall_sha256(path: Path) -> str | None:
    """The sha256 of an unchanged large file as the cache has it; None where it has none."""
    try:
        if path.stat().st_size < LARGE:
            return None
        known = json.loads(_entry(path).read_text(encoding="utf8"))
        is_fresh = 0 <= time.time() - known["at"] < TRUSTED_SECONDS
        return known["sha256"] if is_fresh and known["state"] == _state(path) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_sha256(path: Path, digest: str, at: float) -> None:
    """Keeps the sha256 of a large file, computed at the time `at`, unless the file changed just before."""
    status = path.stat()
    changed = max(status.st_mtime, status.st_ctime)
    if status.st_size < LARGE or at - changed < SETTLED_SECONDS:
        return
    entry = _entry(path)
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = entry.with_suffix(f".{os.getpid()}.partial")
    content = {"path": str(path), "state": _state(path), "sha256": digest, "at": at}
    partial.write_text(json.dumps(content), encoding="utf8")
    replace_file(partial, entry)


def _entry(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return cache_folder() / "hashes" / f"{name}.json"


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    ]
