"""The short form of `benchmarks.soak`: all kinds of trouble in one run."""

from pathlib import Path

import pytest

from benchmarks.soak import soaked


@pytest.mark.fault
def test_a_run_through_all_kinds_of_trouble_ends_as_an_untroubled_one(
    demo_world: Path, tmp_path: Path
) -> None:
    """Two ranks with five faults."""
    figures = soaked(demo_world / "home", tmp_path, seed=3, steps=100)
    assert figures["finished"]
    assert figures["kills"] >= 1
    assert figures["signals"] >= 1
    assert figures["left_out"] == 1
    assert figures["left_out_by_others"] == 0
    assert figures["loss_difference"] <= 1e-6
    assert figures["wrong_rows"] == 0
    assert figures["goodput"] > 0.6
