"""Caches converted catalogs on disk: Arrow tables and arrays that are opened memory-mapped.

A cached catalog is a folder with a checksum of each file; one that was damaged is converted again.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from catalog.atomic_write import publish_first, stage_folder
from catalog.cache import cache_folder
from catalog.checksums import (
    checksum_mismatch,
    compute_checksums,
    dumps_with_checksum,
    loads_with_checksum,
)
from catalog.convert import Converted
from catalog.interactions import Interactions
from catalog.item_texts import TextColumn
from catalog.notes import notes_from_json

FORMAT_VERSION = 7
"""Increased when the format of the converted files changes, so that catalogs are converted again."""
CHECKSUMS_FILE = "checksums.json"
"""Size and sha256 of each converted file."""
METADATA_FILE = "metadata.json"
ROWS_PER_BATCH = 65_536


def cached_conversion(key: str, convert: Callable[[], Converted]) -> dict[str, Any]:
    """The fields of a `Catalog` that come from its tables, opened from the cache under `key`.

    Calls `convert` where the cache has no entry for `key`, or a damaged one.
    """
    folder = cache_folder() / "catalogs" / f"{key}-{FORMAT_VERSION}"
    damage = _find_damage(folder) if folder.exists() else ""
    if damage:
        print(f"vitrine: {folder} is damaged ({damage}); converting again", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    if damage or not folder.exists():
        _write(convert(), folder)
    return _open(folder)


def _find_damage(folder: Path) -> str:
    """The first damage of a cached catalog, in a few words; "" if its files match their checksums."""
    try:
        checksums = loads_with_checksum((folder / CHECKSUMS_FILE).read_text(encoding="utf8"))
        return checksum_mismatch(folder, checksums["files"])
    except (OSError, ValueError, KeyError):
        return f"{CHECKSUMS_FILE} cannot be read"


def _write(content: Converted, folder: Path) -> None:
    """Writes the converted tables to `folder`, atomically; a folder written meanwhile stays."""
    with stage_folder(folder, shared=True) as staging:
        _write_arrays(content, staging)
        _write_tables(content, staging)
        metadata = {
            "roles": content.roles,
            "has_timestamps": content.has_timestamps,
            "num_dropped": content.num_dropped,
            "notes": content.notes.as_json(),
        }
        (staging / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf8")
        checksums = dumps_with_checksum({"files": compute_checksums(staging)})
        (staging / CHECKSUMS_FILE).write_text(checksums, encoding="utf8")
    publish_first(staging, folder)


def _write_arrays(content: Converted, folder: Path) -> None:
    arrays = {
        "user_ids": content.user_ids,
        "offsets": content.offsets,
        "items": content.item_rows,
        "times": content.times,
        "ratings": content.ratings,
        "edges": content.edges,
    }
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _write_tables(content: Converted, folder: Path) -> None:
    tables = {
        "items": content.items,
        "columns": content.columns,
        "reviews": content.reviews,
        "split_labels": content.split_labels,
    }
    for name, table in tables.items():
        if table is not None:
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_stream(sink, table.schema) as writer,
            ):
                writer.write_table(table.combine_chunks(), max_chunksize=ROWS_PER_BATCH)


def _open(folder: Path) -> dict[str, Any]:
    metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf8"))
    reviews, split_labels = folder / "reviews.arrow", folder / "split_labels.arrow"
    interactions = Interactions(
        offsets=_open_array(folder / "offsets.npy"),
        items=_open_array(folder / "items.npy"),
        times=_open_array(folder / "times.npy"),
        reviews=TextColumn(_open_table(reviews)["review"]) if reviews.exists() else None,
        ratings=_open_optional_array(folder / "ratings.npy"),
        split_labels=_open_table(split_labels)["split"] if split_labels.exists() else None,
    )
    return {
        "items": Dataset.from_file(str(folder / "items.arrow")),
        "columns": _open_table(folder / "columns.arrow"),
        "user_ids": _open_array(folder / "user_ids.npy"),
        "interactions": interactions,
        "edges": _open_optional_array(folder / "edges.npy"),
        **metadata,
        "notes": notes_from_json(metadata["notes"]),
    }


def _open_table(path: Path) -> pa.Table:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _open_optional_array(path: Path) -> NDArray[Any] | None:
    return _open_array(path) if path.exists() else None


def _open_array(path: Path) -> NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)
