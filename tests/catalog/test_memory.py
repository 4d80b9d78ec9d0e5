"""What a process holds at its peak."""

import sys

import numpy as np
import pytest

from catalog.memory import PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_peak_that_is_gone_is_reported_and_one_before_is_not() -> None:
    np.ones(2**26 // 8).sum()  # 64 MiB, before
    memory = PeakMemory()
    assert memory.mib is not None
    assert memory.mib < 16
    np.ones(2**25 // 8).sum()
    assert 24 < memory.mib < 48
