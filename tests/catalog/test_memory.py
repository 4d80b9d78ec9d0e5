"""What a process holds at its peak."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog.memory import PeakMemory, release_freed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_peak_that_is_gone_is_reported_and_one_before_is_not() -> None:
    np.ones(2**26 // 8).sum()  # 64 MiB, before
    memory = PeakMemory()
    assert memory.mib is not None
    assert memory.mib < 16
    np.ones(2**25 // 8).sum()
    assert 24 < memory.mib < 48


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    blocks = [bytearray(100_000) for _ in range(2_000)]
    kept = blocks[-1]  # at the end of the heap: what is before it cannot be given back by itself
    del blocks
    before = resident()
    release_freed()
    assert before - resident() > 100_000_000
    assert len(kept) == 100_000
