"""What is kept of every item on disk: arrays that several processes fill, block by block."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catalog.errors import VitrineError

TENSOR = "vectors"
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind) for name, kind in (("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8"))
}
ALIGNED = 64
"""The data begins at a multiple of so many bytes."""


class VectorWriter:
    """A store that several processes may fill; what was written is on disk when `flush` returns.

    Written through a file handle, not a memory map: pages of a map count as this process's memory.
    """

    def __init__(self, path: Path, num_rows: int, width: int) -> None:
        """Makes the file, of zeros, or opens the one that is there."""
        self.width = width
        size = 4 * num_rows * width
        header = {TENSOR: {"dtype": "F32", "shape": [num_rows, width], "data_offsets": [0, size]}}
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % ALIGNED)
        self.start = 8 + len(text)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)
        self.is_new = os.fstat(self.file).st_size != self.start + size
        if self.is_new:
            os.pwrite(self.file, len(text).to_bytes(8, "little") + text, 0)
            os.ftruncate(self.file, self.start + size)

    def write(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Puts `vectors` (n, width) at `rows` (n,)."""
        order = np.argsort(rows)
        rows, vectors = rows[order], np.ascontiguousarray(vectors[order], dtype="<f4")
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of runs without a gap
        for first, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            place = self.start + 4 * self.width * int(rows[first])
            os.pwrite(self.file, vectors[first:stop].tobytes(), place)

    def flush(self) -> None:
        os.fsync(self.file)

    def close(self) -> None:
        os.fsync(self.file)
        os.close(self.file)


def save_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    """All of a small catalog's at once: `vectors` (num_rows, width)."""
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
            f"{path} is no safetensors file with one tensor of F16, F32 or F64: {error}"
        ) from error


def shared_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """An array on disk, made of zeros if it is new, which several processes fill."""
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.partial")
        np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
        try:
            os.link(partial, path)  # unlike a rename, does not replace what another process made
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return np.load(path, mmap_mode="r+", allow_pickle=False)
