"""What a process holds at its peak."""

import platform
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalog.memory import PeakMemory, release_buffers, release_freed


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_pages_of_a_mapped_table_leave_memory_and_those_of_others_keep_their_content(
    tmp_path: Path,
) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) * 1024

    numbers = np.arange(4_000_000)
    table = pa.table({"number": numbers})
    with pa.ipc.new_stream(str(tmp_path / "table"), table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_stream(pa.memory_map(str(tmp_path / "table"))).read_all()["number"]
    held = pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers.tobytes())])
    before = resident()
    assert (mapped.to_numpy() == numbers).all()
    assert resident() - before > 30_000_000
    release_buffers(*mapped.chunks, held)
    assert resident() - before < 1_000_000
    assert (mapped.to_numpy() == numbers).all()
    assert (held.to_numpy() == numbers).all()
