"""Writes precomputed features of the source into the imported folder, for the items that are written."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.sources.feature_files import READ_BY_IMPORT, FeatureFile

FOLDER = "features"
"""Where features lie in the imported folder."""


def write_features(
    files: list[FeatureFile], item_ids: pa.ChunkedArray, folder: Path, notes: Notes
) -> None:
    """Writes `features/<name>.parquet` (item_id, vector) for each file; `item_ids`: of the written items.

    Vectors of other items are left out and counted, as are items without a vector. VitrineError where a
    vector is given twice.
    """
    notes.listed = [note for note in notes.listed if note.what != READ_BY_IMPORT]
    for file in files:
        (folder / FOLDER).mkdir(exist_ok=True)
        target = folder / FOLDER / f"{file.name}.parquet"
        written, others, width = _write(file, item_ids, target)
        if not written:
            target.unlink(missing_ok=True)
            notes.add(file.path.name, "holds the vector of no item that is written", "dropped")
            continue
        missing = len(item_ids) - written
        what = f"{written} vectors of width {width} are written to {FOLDER}/{target.name}"
        if others:
            what += f"; {others} are of items that are not"
        if missing:
            what += f"; {missing} items have none"
        notes.add(
            file.path.name,
            what,
            count=written,
            remedy=f"use them with --encoder.extra_modalities.{file.name}.kind features and "
            f"--encoder.extra_modalities.{file.name}.source {FOLDER}/{target.name}",
        )


def _write(file: FeatureFile, item_ids: pa.ChunkedArray, target: Path) -> tuple[int, int, int]:
    """Numbers of vectors written and left out, and their width."""
    found = np.zeros(len(item_ids), dtype=np.bool_)
    writer: parquet.ParquetWriter | None = None
    others = width = 0
    try:
        for ids, vectors in file.read():
            rows = pc.index_in(ids, value_set=item_ids)
            known = pc.is_valid(rows)
            places = rows.drop_null().to_numpy()
            others += len(ids) - len(places)
            if found[places].any() or len(np.unique(places)) < len(places):
                raise VitrineError(f"{file.path} has more than one vector for an item; keep one.")
            found[places] = True
            width = vectors.shape[1]
            if not len(places):
                continue
            kept = vectors[known.to_numpy(zero_copy_only=False)]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(kept.reshape(-1)), width)
            table = pa.table({"item_id": ids.filter(known), "vector": lists})
            if writer is None:
                writer = parquet.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return int(found.sum()), others, width
