"""A resumable store on disk: arrays with one row per item, written block by block.

Decoded media, cached frozen features and embeddings are all kept in one. A block is flushed before it
is marked as done, so that a run which was stopped resumes with the blocks that are not. Knows nothing
of what the arrays hold.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray

from catalog.atomic_write import signal_progress
from catalog.memory import release_pages
from catalog.progress import track
from pretrain.vector_file import VectorWriter

DONE_FILE = "done.npy"
"""In the store's folder: for each block whether it is done, uint8 (num_blocks,)."""


class BlockStore:
    """Arrays of `num_rows` rows in a folder, filled in blocks of `block_size` rows.

    Several processes may open it. Either each fills blocks of its own (`fill` with its rank), or one
    fills all while the others wait (`fill_once`).
    """

    def __init__(self, folder: Path, num_rows: int, block_size: int) -> None:
        """Creates the folder, or opens what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.num_rows = num_rows
        self.block_size = block_size
        self.vectors: dict[str, VectorWriter] = {}
        self.arrays: dict[str, np.memmap] = {}
        blocks = -(-num_rows // block_size)
        self.done, _ = _open_array(folder / DONE_FILE, (blocks,), np.uint8)

    def add_vectors(self, name: str, width: int) -> VectorWriter:
        """Adds float32 vectors (num_rows, width) in a safetensors file that is not memory-mapped."""
        writer = VectorWriter(self.folder / f"{name}.safetensors", self.num_rows, width)
        self.vectors[name] = writer
        if writer.is_new:
            self._mark_all_pending()
        return writer

    def add_array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
        """Adds a memory-mapped array (num_rows, *shape), of zeros where it is new."""
        path = self.folder / f"{name}.npy"
        array, is_new = _open_array(path, (self.num_rows, *shape), dtype)
        self.arrays[name] = array
        if is_new:
            self._mark_all_pending()
        return array

    def _mark_all_pending(self) -> None:
        """Marks all blocks as pending, since a file with their rows is gone."""
        if self.done.any():
            self.done[:] = 0
            self.done.flush()

    @property
    def is_complete(self) -> bool:
        return bool(self.done.all())

    def pending_blocks(self, rank: int = 0, num_ranks: int = 1) -> list[int]:
        """The blocks of this rank that are not done."""
        return [b for b in range(rank, len(self.done), num_ranks) if not self.done[b]]

    def rows_of(self, block: int) -> NDArray[np.int64]:
        start = block * self.block_size
        return np.arange(start, min(start + self.block_size, self.num_rows), dtype=np.int64)

    def fill(
        self,
        write: Callable[[NDArray[np.int64]], None],
        title: str,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        progress: bool = True,
    ) -> None:
        """Calls `write` with the rows of each of this rank's pending blocks, flushes, marks it done."""
        for block in track(self.pending_blocks(rank, num_ranks), title, shown=progress):
            write(self.rows_of(block))
            for writer in self.vectors.values():
                writer.flush()
            for array in self.arrays.values():
                array.flush()
                release_pages(array)
            self.done[block] = 1
            self.done.flush()
            signal_progress()

    def fill_once(
        self, write: Callable[[NDArray[np.int64]], None], title: str, *, progress: bool = True
    ) -> None:
        """As `fill`, by one process at a time: later ones wait, and find all blocks done."""
        if not self.is_complete:
            with FileLock(self.folder / "lock"):
                self.fill(write, title, progress=progress)

    def close(self) -> None:
        for writer in self.vectors.values():
            writer.close()


def _open_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[np.memmap, bool]:
    """An array on disk that several processes write, and whether this one created it, of zeros."""
    if path.exists():
        return np.load(path, mmap_mode="r+", allow_pickle=False), False
    partial = path.with_suffix(f".{os.getpid()}.partial")
    np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
    created = True
    try:
        os.link(partial, path)  # unlike a rename, does not replace what another process created
    except FileExistsError:
        created = False
    finally:
        partial.unlink()
    return np.load(path, mmap_mode="r+", allow_pickle=False), created
