"""Caches converted catalogs on disk: Arrow tables and arrays that are opened memory-mapped.

Items lie in one folder and histories in another, which names it: where interactions alone change, the items
stay. A folder holds a checksum of each file; one that was damaged is converted again.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from filelock import FileLock, Timeout

from catalog.atomic_write import publish_first, stage_folder
from catalog.cache import cache_folder
from catalog.cache_entries import keep_within_limit, mark_used
from catalog.checksums import (
    checksum_mismatch,
    compute_checksums,
    dumps_with_checksum,
    loads_with_checksum,
)
from catalog.config import CatalogConfig
from catalog.conversion.convert import Converted, convert
from catalog.conversion.files import HistoryFiles, TableFile, open_histories, open_table
from catalog.conversion.imported import find_imported
from catalog.conversion.items import ConvertedItems
from catalog.file_hashes import recall_sha256, remember_sha256
from catalog.notes import Notes, notes_from_json
from catalog.roles import Roles
from catalog.sources.base import RawTables

FORMAT_VERSION = 8
"""Increased when the format of the converted files changes, so that catalogs are converted again."""
CHECKSUMS_FILE = "checksums.json"
"""Size and sha256 of each converted file."""
METADATA_FILE = "metadata.json"
WAITING_SECONDS = 10.0
"""After so long a process says that it waits for another one's conversion."""
Metadata = dict[str, Any]


def cached_conversion(
    raw: RawTables, config: CatalogConfig, key: str, items_key: str, quiet: bool = False
) -> dict[str, Any]:
    """The fields of a `Catalog` that come from its tables, opened from the cache.

    `key` identifies all that they are made of, `items_key` what the items are made of. Where the cache has
    no entry, or a damaged one, one process converts the tables and others wait. What was decided is
    printed to stderr, unless `quiet`.
    """
    folder = cache_folder() / "catalogs" / f"{key}-{FORMAT_VERSION}"
    is_new = False
    metadata = _whole_metadata(folder)
    if metadata is None:
        with _alone(key):
            metadata = _whole_metadata(folder)
            if metadata is None:
                metadata = _convert(raw, config, folder, f"items-{items_key}-{FORMAT_VERSION}")
                is_new = True
    fields = _open(folder, metadata)
    if is_new:
        for note in [] if quiet else fields["notes"]:
            print(f"vitrine: {note}", file=sys.stderr)
        keep_within_limit()
    return fields


@contextmanager
def _alone(key: str) -> Iterator[None]:
    """Holds the lock of a conversion; says so where another process holds it for long."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{key}.lock")
    try:
        lock.acquire(timeout=WAITING_SECONDS)
    except Timeout:
        print("vitrine: another process converts the catalog; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _whole_metadata(folder: Path) -> Metadata | None:
    """The metadata of a cached catalog, None where it or its items are absent; removes what is damaged."""
    metadata = _metadata(folder)
    return metadata if metadata and _metadata(folder.parent / metadata["items"]) else None


def _metadata(folder: Path) -> Metadata | None:
    """The metadata of a folder whose files match their checksums; a damaged one is removed."""
    if not folder.exists():
        return None
    at = time.time()
    try:
        checksums = loads_with_checksum((folder / CHECKSUMS_FILE).read_text(encoding="utf8"))
        files = checksums["files"].items()
        read = {
            name: (size, digest)
            for name, (size, digest) in files
            if recall_sha256(folder / name) != digest
        }
        damage = checksum_mismatch(folder, read)
    except (OSError, ValueError, KeyError):
        read, damage = {}, f"{CHECKSUMS_FILE} cannot be read"
    if damage:
        print(f"vitrine: {folder} is damaged ({damage}); converting again", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    for name, (_, digest) in read.items():
        remember_sha256(folder / name, digest, at)
    return json.loads((folder / METADATA_FILE).read_text(encoding="utf8"))


def _convert(raw: RawTables, config: CatalogConfig, folder: Path, items_name: str) -> Metadata:
    """Converts the tables into two folders; returns the metadata of the one with histories."""
    imported = find_imported(raw, config)
    if imported is not None:
        items = folder.with_name(_items_name(items_name, imported.item_roles, is_aligned=False))
        if _metadata(items) is None:
            _write(items, imported.write_items)
        known = open_table(items / "items.arrow")["item_id"]
        return _write(
            folder, lambda path: imported.write_histories(path, known) | {"items": items.name}
        )
    known_items, known_folder = _known_items(folder.parent, items_name)
    converted = convert(raw, config, known_items)
    if converted.items is not None:
        of_items = converted.items
        name = _items_name(items_name, of_items.assigned, is_aligned=of_items.is_aligned)
        known_folder = folder.with_name(name)
        _write(known_folder, lambda path: _write_items(of_items, path))
    assert known_folder is not None
    items = known_folder.name
    return _write(folder, lambda path: _write_histories(converted, path) | {"items": items})


def _items_name(name: str, assigned: Roles, *, is_aligned: bool) -> str:
    """Items are of one folder where their columns have the same roles, and their ids one form."""
    spec = json.dumps([assigned, is_aligned], sort_keys=True)
    return f"{name}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}"


def _known_items(base: Path, name: str) -> tuple[ConvertedItems | None, Path | None]:
    """The same items as they were converted for other interactions."""
    for folder in sorted(base.glob(f"{name}-*")):
        metadata = _metadata(folder)
        if metadata is not None:
            items, columns = (open_table(folder / f"{name}.arrow") for name in ("items", "columns"))
            roles, assigned = metadata["roles"], metadata["assigned"]
            return ConvertedItems(items, columns, roles, assigned, []), folder
    return None, None


def _write(folder: Path, fill: Callable[[Path], Metadata]) -> Metadata:
    """Fills a folder, atomically, and adds metadata and checksums; one written meanwhile stays."""
    with stage_folder(folder, shared=True) as staging:
        metadata = fill(staging)
        (staging / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf8")
        at = time.time()
        checksums = compute_checksums(staging)
        content = dumps_with_checksum({"files": checksums})
        (staging / CHECKSUMS_FILE).write_text(content, encoding="utf8")
    publish_first(staging, folder)
    for name, (_, digest) in checksums.items():
        remember_sha256(folder / name, digest, at)
    return metadata


def _write_items(content: ConvertedItems, folder: Path) -> Metadata:
    for name, table in (("items", content.items), ("columns", content.columns)):
        file = TableFile(folder / f"{name}.arrow")
        file.append(table)
        file.close()
    return {
        "roles": content.roles,
        "assigned": content.assigned,
        "notes": Notes(content.notes).as_json(),
    }


def _write_histories(content: Converted, folder: Path) -> Metadata:
    with HistoryFiles(folder) as files:
        files.append(content.histories)
    if content.edges is not None:
        np.save(folder / "edges.npy", content.edges, allow_pickle=False)
    return {
        "roles": content.roles,
        "has_timestamps": content.histories.has_timestamps,
        "num_dropped": content.histories.num_dropped,
        "notes": Notes(content.notes).as_json(),
    }


def _open(folder: Path, metadata: Metadata) -> dict[str, Any]:
    items = folder.parent / metadata["items"]
    for used in (folder, items):
        mark_used(used)
    of_items = json.loads((items / METADATA_FILE).read_text(encoding="utf8"))
    return {
        "items": Dataset.from_file(str(items / "items.arrow")),
        "columns": open_table(items / "columns.arrow"),
        **open_histories(folder),
        "roles": {"items": of_items["roles"], "interactions": metadata["roles"]},
        "has_timestamps": metadata["has_timestamps"],
        "num_dropped": metadata["num_dropped"],
        "notes": list(dict.fromkeys(notes_from_json([*of_items["notes"], *metadata["notes"]]))),
    }
