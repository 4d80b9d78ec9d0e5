"""Divides Amazon Reviews 2023 at the times of its benchmark."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.notes import Notes
from catalog.reading import BatchReader

CUTS = (1628643414042, 1658002729837)
"""Times in ms of the official split: of the first validation and of the first test interaction."""
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Part of a file's name → subset."""


def official_split(read: BatchReader, path: Path, notes: Notes) -> BatchReader:
    """The batches with the split of the benchmark's times, where each part has interactions.

    The first call finds out whether each has: it reads until all parts were there, and whole where times
    are texts, of which the last may be none.
    """
    decided: list[bool] = []

    def batches() -> Iterator[pa.RecordBatch]:
        if not decided:
            decided.append(_has_all_parts(read))
        if decided[0]:
            notes.add(
                path.name,
                f"the column split divides at the official times {CUTS[0]} and {CUTS[1]}",
                remedy="set split.kind: temporal for a split of your own",
            )
        for batch in read():
            yield batch.append_column("split", _split(batch)) if decided[0] else batch

    return batches


def _has_all_parts(read: BatchReader) -> bool:
    """Whether there are interactions of each part, and no time that is no number."""
    seen: set[str] = set()
    try:
        for batch in read():
            seen.update(pc.unique(_split(batch)).to_pylist())
            if len(seen) == len(SPLITS) and pa.types.is_integer(batch["timestamp"].type):
                return True
    except (pa.ArrowInvalid, KeyError):
        return False
    return len(seen) == len(SPLITS)


def _split(batch: pa.RecordBatch) -> pa.Array:
    times = pc.fill_null(batch["timestamp"].cast(pa.int64()), 0)
    early, late = pc.less(times, CUTS[0]), pc.less(times, CUTS[1])
    return pc.if_else(early, "train", pc.if_else(late, "validation", "test"))
