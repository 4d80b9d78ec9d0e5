"""Precomputed features that datasets carry in files of their own: vectors in batches, by item id."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from catalog.columns import as_text
from catalog.errors import VitrineError, one_line_message
from catalog.notes import Notes

BATCH_BYTES = 128 << 20
"""Bytes of vectors read at once."""
PARQUET_WIDTH = 1024
"""Width by which rows of parquet files are counted."""
ASIN_BYTES, AMAZON_WIDTH = 10, 4096
"""A record of Amazon's features: an id, and so many 32-bit floats in little-endian order."""
READ_BY_IMPORT = "is read by an import alone: precomputed features are no column"
Vectors = Iterator[tuple[pa.Array, NDArray[np.float32]]]
"""Batches of ids, large_string (k,), and float32 (k, width)."""


@dataclass(frozen=True)
class FeatureFile:
    """A file of vectors, one for each item."""

    name: str
    """What the features are called: the file's name without its suffix."""
    path: Path
    read: Callable[[], Vectors]
    """Reads the vectors; VitrineError where the file is not as it should be."""


def note_features(files: list[FeatureFile], notes: Notes) -> None:
    """Notes how features are used, which no other command reads from a source directly."""
    for file in files:
        notes.add(
            file.path.name,
            READ_BY_IMPORT,
            remedy="vitrine catalog import writes it in the form that modalities of kind features read",
        )


def numpy_features(path: Path) -> FeatureFile:
    """An .npy file whose row n is the vector of the item with the id n (MMRec)."""

    def read() -> Vectors:
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise VitrineError(
                f"{path} is no .npy file that can be read: {one_line_message(error)}"
            ) from error
        if vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise VitrineError(
                f"{path} holds {vectors.dtype} of shape {vectors.shape}; features are one row of "
                "floating-point numbers an item."
            )
        rows = _rows(vectors.shape[1])
        for start in range(0, len(vectors), rows):
            block = np.asarray(vectors[start : start + rows], dtype=np.float32)
            ids = np.arange(start, start + len(block)).astype(str)
            yield pa.array(ids, pa.large_string()), block

    return FeatureFile(path.stem, path, read)


def amazon_features(path: Path) -> FeatureFile:
    """Amazon's image features of 2014, `image_features_<domain>.b`: an id of ten letters and 4,096 floats
    each (McAuley et al., 2015)."""
    record = np.dtype([("id", f"S{ASIN_BYTES}"), ("vector", "<f4", AMAZON_WIDTH)])

    def read() -> Vectors:
        if path.stat().st_size % record.itemsize:
            raise VitrineError(
                f"{path} has {path.stat().st_size:,} bytes, which is no multiple of "
                f"{record.itemsize:,}, the bytes of one item; download it again."
            )
        records = np.memmap(path, record, "r") if path.stat().st_size else np.empty(0, record)
        rows = _rows(AMAZON_WIDTH)
        for start in range(0, len(records), rows):
            block = records[start : start + rows]
            ids = [one.decode("ascii", "replace") for one in block["id"].tolist()]
            yield pa.array(ids, pa.large_string()), np.array(block["vector"], dtype=np.float32)

    return FeatureFile(path.stem, path, read)


def parquet_features(path: Path, identity: str, column: str) -> FeatureFile:
    """A parquet file with a column of ids and one of lists of floats (Yambda)."""

    def read() -> Vectors:
        try:
            file = parquet.ParquetFile(path, pre_buffer=False)
            for batch in file.iter_batches(_rows(PARQUET_WIDTH), columns=[identity, column]):
                ids = as_text(pa.chunked_array([batch.column(identity)]), identity)
                lists = batch.column(column)
                lengths = np.diff(lists.offsets.to_numpy())
                if len(set(lengths.tolist())) > 1 or lists.null_count:
                    raise VitrineError(f"{path} has vectors of different lengths in {column}.")
                values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                yield ids.combine_chunks(), values.reshape(len(batch), -1)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise VitrineError(
                f"{path} is no parquet file with {identity} and {column}: {one_line_message(error)}"
            ) from error

    return FeatureFile(path.stem, path, read)


def _rows(width: int) -> int:
    return max(1, BATCH_BYTES // (4 * max(1, width)))
