"""Vectors of every item in a safetensors file: a writer for several processes, and a memory-mapped view."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import VitrineError

TENSOR = "vectors"
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind) for name, kind in (("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8"))
}
ALIGNMENT = 64
"""Alignment of the data in bytes."""


class VectorWriter:
    """Writes rows of a (num_rows, width) float32 tensor; after `flush` they are on disk.

    Several processes may write to one file. It is written through a file handle, not a memory map:
    pages of a map count as the process's memory.
    """

    def __init__(self, path: Path, num_rows: int, width: int) -> None:
        """Creates a file of zeros, or opens an existing one."""
        self.width = width
        size = 4 * num_rows * width
        header = {TENSOR: {"dtype": "F32", "shape": [num_rows, width], "data_offsets": [0, size]}}
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        self.start = 8 + len(text)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)
        self.is_new = os.fstat(self.file).st_size != self.start + size
        if self.is_new:
            os.pwrite(self.file, len(text).to_bytes(8, "little") + text, 0)
            os.ftruncate(self.file, self.start + size)

    def write(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Writes `vectors` (n, width) to `rows` (n,)."""
        order = np.argsort(rows)
        rows, vectors = rows[order], np.ascontiguousarray(vectors[order], dtype="<f4")
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of contiguous runs
        for first, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            place = self.start + 4 * self.width * int(rows[first])
            os.pwrite(self.file, vectors[first:stop].tobytes(), place)

    def flush(self) -> None:
        os.fsync(self.file)

    def close(self) -> None:
        os.fsync(self.file)
        os.close(self.file)


def save_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    """Writes `vectors` (num_rows, width) to a new file, in one go."""
    writer = VectorWriter(path, *vectors.shape)
    writer.write(np.arange(len(vectors)), vectors)
    writer.close()


def open_vectors(path: Path) -> NDArray[np.floating]:
    """The one tensor of a safetensors file, memory-mapped: (num_rows, width)."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        tensors = {name: about for name, about in header.items() if name != "__metadata__"}
        ((_, about),) = tensors.items()
        start = 8 + length + about["data_offsets"][0]
        return np.memmap(path, DTYPES[about["dtype"]], "r", start, tuple(about["shape"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VitrineError(
            f"{path} is not a safetensors file with one tensor of F16, F32 or F64: {error}"
        ) from error
