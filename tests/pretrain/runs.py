"""Starts `train_on.py` in processes of its own, for tests and benchmarks."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCRIPT = Path(__file__).with_name("train_on.py")


def train(world: Path, output: Path, killed: bool = False, **settings: Any) -> str:
    """One run to its end, or to its death; `settings` are those of `train_on.Run`. Returns stderr."""
    devices = settings.get("devices", 1)
    start = [sys.executable]
    if devices > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    done = subprocess.run(
        [*start, SCRIPT, world, output, json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    if killed:
        died = -signal.SIGKILL if devices == 1 else 1  # torchrun reports what it saw
        assert done.returncode == died, done.stderr[-3000:]
        assert not output.exists()
    else:
        assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def facts(output: Path) -> dict[str, Any]:
    """What really ran, last: world_size, engine, kind, first_step."""
    return json.loads(output.with_suffix(".json").read_text())


def losses(output: Path) -> NDArray[np.float64]:
    """The whole curve, from the first step on."""
    curve = losses_by_step(output)
    assert list(curve) == list(range(1, len(curve) + 1))
    return np.array(list(curve.values()))


def losses_by_step(output: Path) -> dict[int, float]:
    """Without those of steps that were left out."""
    return dict(json.loads((output / "curves.json").read_text())["loss"])


def largest_difference(one: Path, other: Path) -> float:
    """Of two runs' losses, relative."""
    return float(np.abs(losses(one) / losses(other) - 1).max())


def rows_learned(output: Path) -> list[int]:
    """The rows behind the weights, step by step; sorted within a step, which ranks share."""
    steps: dict[int, list[int]] = defaultdict(list)
    for log in sorted(output.parent.glob(f"{output.name}.rank*.rows")):
        for line in log.read_text().splitlines():
            step, *rows = map(int, line.split())
            steps[step] += rows
    return [row for step in sorted(steps) for row in sorted(steps[step])]


def differing_bytes(one: Path, other: Path) -> int:
    """In the weights of two artifacts."""
    total = 0
    for file in sorted(one.rglob("*.safetensors")):
        mine = np.fromfile(file, dtype=np.uint8)
        theirs = np.fromfile(other / file.relative_to(one), dtype=np.uint8)
        total += int((mine != theirs).sum()) if len(mine) == len(theirs) else len(mine)
    return total
