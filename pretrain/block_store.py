"""A resumable store on disk: arrays with one row per item, written block by block.

Decoded media, cached frozen features and embeddings are all kept in one. A block is flushed before it
is marked as done, so that a run which was stopped resumes with the blocks that are not. Knows nothing
of what the arrays hold.
"""

import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catalog.atomic_write import signal_progress
from catalog.memory import release_pages
from catalog.progress import track
from pretrain.vector_file import VectorWriter

DONE_FILE = "done.npy"
"""In the store's folder: for each block whether it is done, uint8 (num_blocks,)."""


class BlockStore:
    """Arrays of `num_rows` rows in a folder, filled in blocks of `block_size` rows.

    Several processes may open it: each fills blocks of its own (`fill` with its rank), or those that no
    other has taken yet (`fill_together`).
    """

    def __init__(self, folder: Path, num_rows: int, block_size: int) -> None:
        """Creates the folder, or opens what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.num_rows = num_rows
        self.block_size = block_size
        self.vectors: dict[str, VectorWriter] = {}
        self.arrays: dict[str, np.memmap] = {}
        self._files: dict[str, int] = {}
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

    def write_row(self, name: str, row: int, value: NDArray[np.generic]) -> None:
        """Writes one row of an array, through the file: a map would fault in each of its pages."""
        array = self.arrays[name]
        if name not in self._files:
            assert isinstance(array.filename, str | os.PathLike)
            self._files[name] = os.open(array.filename, os.O_WRONLY)
        content = np.ascontiguousarray(value, dtype=array.dtype)
        assert content.shape == array.shape[1:], f"{content.shape} is no row of {name}"
        os.pwrite(self._files[name], content.data, array.offset + row * content.nbytes)

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
        self._fill(track(self.pending_blocks(rank, num_ranks), title, shown=progress), write)

    def fill_together(
        self, write: Callable[[NDArray[np.int64]], None], title: str, *, progress: bool = True
    ) -> None:
        """As `fill`, shared with the other processes that call it: each takes blocks that none has taken,
        and returns when all are done."""
        if self.is_complete:
            return
        with (self.folder / "lock").open(
            "ab"
        ) as file:  # closed with the process: no block stays taken
            for wait in (False, True):
                pending = track(self.pending_blocks(), title, shown=progress and not wait)
                taken = (block for block in pending if self._take(block, file.fileno(), wait))
                self._fill(taken, write, lambda block: lock_byte(file.fileno(), block, LOCK_UN))

    def _take(self, block: int, file: int, wait: bool) -> bool:
        """Whether the block is pending, and now taken by this process."""
        if self.done[block] or not lock_byte(file, block, LOCK_EX if wait else LOCK_EX | LOCK_NB):
            return False
        if self.done[block]:
            lock_byte(file, block, LOCK_UN)
        return not self.done[block]

    def _fill(
        self,
        blocks: Iterable[int],
        write: Callable[[NDArray[np.int64]], None],
        then: Callable[[int], object] = lambda block: None,
    ) -> None:
        """Writes, flushes and marks the blocks; while one waits for the disk the next is written."""
        flushed: Future[object] | None = None

        def finish(block: int) -> None:
            self._finish(block)
            then(block)

        with ThreadPoolExecutor(1) as thread:
            for block in blocks:
                write(self.rows_of(block))
                if flushed is not None:
                    flushed.result()
                flushed = thread.submit(finish, block)
        if flushed is not None:
            flushed.result()
        self._close_files()

    def _finish(self, block: int) -> None:
        rows = self.rows_of(block)
        for writer in self.vectors.values():
            writer.flush()
        for array in self.arrays.values():
            flush_rows(array, int(rows[0]), int(rows[-1]) + 1)
            release_pages(array)
        self.done[block] = 1
        self.done.flush()
        signal_progress()

    def close(self) -> None:
        for writer in self.vectors.values():
            writer.close()
        self._close_files()

    def _close_files(self) -> None:
        """Closes what `write_row` has opened; it opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])


def flush_rows(array: np.memmap, first: int, stop: int) -> None:
    """Waits until these rows are on disk; those that other processes are writing do not count."""
    size = array[:1].nbytes
    begin = (array.offset + first * size) // mmap.PAGESIZE * mmap.PAGESIZE
    mapped: mmap.mmap = getattr(array, "_mmap")  # noqa: B009
    mapped.flush(begin, array.offset + stop * size - begin)


def lock_byte(file: int, byte: int, kind: int) -> bool:
    """Locks or unlocks one byte of a file for this process; False where another has it (LOCK_NB)."""
    try:
        lockf(file, kind, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _open_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[np.memmap, bool]:
    """An array on disk that several processes write, and whether this one created it, of zeros."""
    if path.exists():
        array = np.load(path, mmap_mode="r+", allow_pickle=False)
        if array.shape == shape and array.dtype == dtype:
            return array, False
        path.unlink()  # of a version that divided the rows in other ways
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
