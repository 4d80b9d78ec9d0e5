"""Memory of the process: releases pages of memory-mapped files and freed memory, and measures the peak.

Pages of a memory map count as the process's memory once they are read: after one pass over a large catalog
the whole file would. Released pages are read from the file again when they are needed.
"""

import ctypes
import mmap
import sys
from bisect import bisect
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def release_pages(array: NDArray[Any]) -> None:
    """Releases the pages of a memory-mapped array; a no-op for any other array."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = (
            getattr(base, "_mmap", None)
            if isinstance(base, np.memmap)
            else getattr(base, "base", None)
        )
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def release_buffers(*arrays: pa.Array) -> None:
    """Releases the pages of Arrow arrays that lie in memory-mapped files; a no-op for any other array."""
    buffers = [(one.address, one.size) for array in arrays for one in array.buffers() if one]
    mapped = _mapped_files() if buffers else []
    for address, size in buffers:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE - start
        place = bisect(mapped, (address, sys.maxsize)) - 1
        if length > 0 and place >= 0 and start + length <= mapped[place][1]:
            advice = ctypes.c_int(mmap.MADV_DONTNEED)
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)


def _mapped_files() -> list[tuple[int, int]]:
    """First address and end of each memory map of a file that is not writable; none but on Linux."""
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, rights, _, _, inode, *_ = line.split(maxsplit=5)
            if inode != "0" and "w" not in rights:
                start, _, end = addresses.partition("-")
                found.append((int(start, 16), int(end, 16)))
    return found


def release_freed() -> None:
    """Gives freed memory back that the allocator holds (glibc); a no-op elsewhere."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


class PeakMemory:
    """Measures the peak memory of this process since its creation, beyond the memory at that time."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            self.before: float | None = _status("VmRSS")
        except OSError:
            self.before = None

    @property
    def mib(self) -> float | None:
        """The peak in MiB, rounded to a tenth; None on systems other than Linux."""
        if self.before is None:
            return None
        return round(max(0.0, _status("VmHWM") - self.before) / 1024, 1)


def _status(name: str) -> float:
    """A value in kB of the process's status file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return float(line.split()[1])
    raise OSError(f"/proc/self/status says nothing of {name}")
