"""Rank failure: one rank of two is killed or stopped at random; all must end and the run must resume.

python -m benchmarks.deaths    # about 15 minutes on two cores
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.shards import wrong_rows
from benchmarks.sources import CHECKPOINTS
from catalog.demo import build_demo_world
from tests.pretrain.runs import SCRIPT, largest_difference, train

DEATHS = 20
STEPS, EVERY = 60, 10
TIMEOUT = 10.0
"""Time-out in seconds of the watchdog, which detects the stopped rank."""
RUN: dict[str, Any] = {"steps": STEPS, "every": EVERY, "strategy": "ddp", "devices": 2}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VITRINE_CACHE"] = str(folder / "cache")
        world = build_demo_world(folder / "world", num_items=80, num_users=60) / "home"
        figures = measure_rank_failures(world, folder)
    write_record(
        "launch-rank-death",
        claim="A rank that is killed takes the others with it within 10 seconds, one that is stopped "
        "within the time-out and 5; started again, the run ends with the loss of an uninterrupted one.",
        command="python -m benchmarks.deaths",
        seeds=range(DEATHS),
        figures=figures,
        sources=[
            *CHECKPOINTS,
            "benchmarks/shards.py",
            "launch/submit/agent.py",
            "launch/watchdog.py",
        ],
        goal=[
            f"deaths == {DEATHS}",
            "slowest_end_seconds <= 10",
            "stopped_end_seconds_over_timeout <= 5",
            "stopped_rank_named == 1",
            "largest_loss_difference <= 1e-6",
            "repeated_or_skipped_rows == 0",
        ],
        note=f"{STEPS} steps of pretraining at toy size, two ranks with gloo under torchrun without "
        "restarts; SIGKILL to a random rank at a random moment between the first step and about the "
        f"last, then the same command again; once SIGSTOP instead, the watchdog's time-out {TIMEOUT:.0f} "
        "s. End: from the signal until no process of the run is left.",
    )


def measure_rank_failures(world: Path, folder: Path) -> dict[str, float]:
    train(world, folder / "whole", **RUN)
    seconds = json.loads((folder / "whole.json").read_text())["seconds"]
    figures: dict[str, float] = {"deaths": 0, "repeated_or_skipped_rows": 0}
    ends, differences, befores = [], [], 0
    for seed in range(DEATHS):
        rng = random.Random(seed)
        output = folder / f"death-{seed}"
        elapsed, _ = strike(world, output, signal.SIGKILL, rng.randrange(2), rng.random() * seconds)
        ends.append(elapsed)
        befores += any(output.with_name(f"{output.name}.work").rglob("step=*"))
        go_on(world, output, folder, figures, differences)
        figures["deaths"] += 1
        print(f"death {seed}: all ended in {elapsed:.1f} s, {differences[-1]:.2g}", flush=True)
    output = folder / "stopped"
    elapsed, output_text = strike(world, output, signal.SIGSTOP, 1, 0.5 * seconds)
    go_on(world, output, folder, figures, differences)
    return {
        **figures,
        "slowest_end_seconds": max(ends),
        "went_on_from_a_checkpoint": befores,
        "stopped_end_seconds_over_timeout": elapsed - TIMEOUT,
        "stopped_rank_named": float("it waits for rank 1" in output_text),
        "largest_loss_difference": max(differences),
    }


def strike(
    world: Path, output: Path, what: signal.Signals, rank: int, after: float
) -> tuple[float, str]:
    """Starts a run and sends a signal to one rank; returns seconds until all processes end, and stderr."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(SCRIPT), str(world), str(output), json.dumps({**RUN, "hang_timeout": TIMEOUT})),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    pids = [output.with_name(f"{output.name}.rank{r}.pid") for r in range(2)]
    while not all(path.exists() for path in pids):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    ranks = [int(path.read_text()) for path in pids]
    time.sleep(after)
    struck = time.perf_counter()
    with contextlib.suppress(ProcessLookupError):  # the rank ended before the signal
        os.kill(ranks[rank], what)
    _, output_text = process.communicate(timeout=120)
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        time.sleep(0.02)
    return time.perf_counter() - struck, output_text


def go_on(
    world: Path, output: Path, folder: Path, figures: dict[str, float], differences: list[float]
) -> None:
    for path in output.parent.glob(f"{output.name}.rank*.pid"):
        path.unlink()
    if not output.exists():
        train(world, output, **RUN)
    differences.append(largest_difference(output, folder / "whole"))
    figures["repeated_or_skipped_rows"] += wrong_rows(output, STEPS)


if __name__ == "__main__":
    main()
