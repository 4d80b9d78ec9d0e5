"""What is not a number never reaches the weights, on any rank, under any strategy."""

import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from launch.checkpoints import STATE
from pretrain.checkpoint_files import newest_checkpoint

SCRIPT = Path(__file__).with_name("train_poisoned.py")
STEPS = 8


def train(
    world: Path, output: Path, strategy: str, devices: int, poison: str, first: int, last: int
) -> tuple[subprocess.CompletedProcess[str], list[float]]:
    arguments = [world, output, strategy, devices, poison, first, last]
    start = [sys.executable]
    if devices > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    done = subprocess.run(
        [*start, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done, json.loads(output.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("strategy", "devices", "poison"),
    [
        ("auto", 1, "image"),
        ("auto", 1, "text"),
        ("auto", 1, "gradient"),
        pytest.param("ddp", 2, "image", marks=pytest.mark.slow),
        pytest.param("zero2", 2, "gradient", marks=pytest.mark.slow),
        pytest.param("zero3", 2, "text", marks=pytest.mark.slow),
    ],
)
def test_a_nonfinite_step_changes_nothing_and_the_run_continues(
    strategy: str, devices: int, poison: str, demo_world: Path, tmp_path: Path
) -> None:
    done, sums = train(demo_world / "home", tmp_path / "encoder", strategy, devices, poison, 3, 4)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(sums) == STEPS
    assert all(math.isfinite(total) for total in sums)
    changed = [before != after for before, after in pairwise(sums)]
    assert changed == [step != 3 for step in range(1, STEPS)]
    message = f"step 3 skipped on all ranks: the gradient of rank {devices - 1} is not finite; "
    assert message in done.stderr, done.stderr[-3000:]
    if poison == "image":
        assert f"{message}the image of items (rows)" in done.stderr


@pytest.mark.parametrize(
    ("strategy", "devices"), [("auto", 1), pytest.param("zero2", 2, marks=pytest.mark.slow)]
)
def test_steps_without_end_end_the_run_and_the_last_good_checkpoint_stands(
    strategy: str, devices: int, demo_world: Path, tmp_path: Path
) -> None:
    done, sums = train(demo_world / "home", tmp_path / "encoder", strategy, devices, "image", 4, 99)
    assert done.returncode != 0
    assert "vitrine: 3 steps in a row" in done.stderr
    assert not (tmp_path / "encoder").exists()
    assert len(set(sums[3:])) == 1  # nothing changed from the poisoned steps on
    (work,) = (tmp_path / "encoder.work").iterdir()
    checkpoint = newest_checkpoint(work)
    assert checkpoint is not None
    if (checkpoint / STATE).is_file():
        weights = torch.load(checkpoint / STATE, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())
