"""Removes one person from what was made: texts and pictures for them, work under way, converted catalogs.

Nothing else keeps a person by name: states are computed from histories when they are needed, and no
adapter is trained for one person. What they did stays where the shop keeps it until the shop removes it,
and in the weights of what was trained on it until that is trained again; both are told.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.artifacts import MANIFEST, amend_artifact, read_manifest
from catalog.catalog import cache_folder
from catalog.errors import VitrineError
from catalog.staging import flush_file
from generate.provenance import opaque_id

MADE = ("texts", "pictures")
"""Kinds of artifacts with a row for each person and item."""
LEARNED = ("recommender", "text-generator", "image-generator")
"""Kinds that were trained on what people did."""


@dataclass
class Forgotten:
    rows: dict[Path, int] = field(default_factory=dict)
    """File → rows removed from it."""
    caches: list[Path] = field(default_factory=list)
    """Converted catalogs removed, which are made anew from what the shop keeps then."""
    learned: list[Path] = field(default_factory=list)
    """Artifacts below the folder whose training may have seen them."""


def forget(user: str, folder: Path) -> Forgotten:
    """Removes the person `user` from every artifact at or below `folder`, and from the cache."""
    if not folder.is_dir():
        raise VitrineError(f"{folder} is no folder; give the one below which artifacts are.")
    person, done = opaque_id(user), Forgotten()
    for place in sorted(path.parent for path in folder.rglob(MANIFEST)):
        try:
            kind = str(read_manifest(place)["kind"])
        except VitrineError:
            continue  # another tool's manifest, or one that no run would read either
        if kind in MADE:
            file = place / f"{kind}.parquet"
            if _is_in(file, person):
                with amend_artifact(place) as copy:
                    done.rows[file] = _take_out(copy / file.name, person)
        elif kind in LEARNED:
            done.learned.append(place)
    for part in sorted(folder.rglob("*.work/part-*.parquet")):
        if _is_in(part, person):
            done.rows[part] = _take_out(part, person)
    for cache in _catalogs_with(user):
        shutil.rmtree(cache)
        done.caches.append(cache)
    return done


def _is_in(file: Path, person: str) -> bool:
    named = pq.read_table(file, columns=["person"]).column("person")
    return bool(pc.any(pc.equal(named, person)).as_py())


def _take_out(file: Path, person: str) -> int:
    """Rewrites a file without the person's rows, a group of rows at a time; how many they were."""
    removed = 0
    partial = file.with_suffix(".partial")
    with pq.ParquetFile(file) as read, pq.ParquetWriter(partial, read.schema_arrow) as written:
        for group in range(read.num_row_groups):
            rows = read.read_row_group(group)
            kept = rows.filter(pc.not_equal(rows.column("person"), person))
            removed += len(rows) - len(kept)
            written.write_table(kept)
    flush_file(partial)
    partial.replace(file)
    return removed


def _catalogs_with(user: str) -> Iterator[Path]:
    for file in sorted((cache_folder() / "catalogs").glob("*/user_ids.npy")):
        known = np.load(file, mmap_mode="r", allow_pickle=False)
        if any(
            (known[start : start + 65_536] == user).any() for start in range(0, len(known), 65_536)
        ):
            yield file.parent
