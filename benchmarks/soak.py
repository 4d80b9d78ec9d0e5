"""Soak test: long runs with random faults must all end, with the losses of undisturbed runs.

python -m benchmarks.soak    # about an hour on two idle cores
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_record
from benchmarks.shards import wrong_rows
from benchmarks.sources import CHECKPOINTS
from catalog.demo import build_demo_world
from finetune.statistics import mean_interval
from launch.events import read_events
from launch.submit.config import RESUMABLE
from tests.pretrain.runs import SCRIPT, facts, losses_by_step

SEEDS, STEPS, EVERY = 20, 2000, 25
RESTARTS = 5
"""Restarts of a killed run by the agent; after a signal the agent exits and is started again here."""
BROKEN_PICTURES = 4
"""Images of 80 that are damaged, besides the demo world's six: half truncated, half overwritten."""
POISONED = 0.01
"""Share of the steps in which a row of image pixels is NaN."""
PATIENCE = 600


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VITRINE_CACHE"] = str(folder / "cache")
        world = build_demo_world(folder / "world", num_items=80, num_users=60) / "home"
        figures = soak_all(world, folder)
    write_record(
        "launch-soak",
        claim="Through kills, signals, rows that are not a number and pictures that cannot be read, "
        "every run of 2,000 steps ends as if nothing had stopped it, and hardly a step is done twice.",
        command="python -m benchmarks.soak",
        seeds=range(SEEDS),
        figures=figures,
        sources=[
            *CHECKPOINTS,
            "benchmarks/shards.py",
            "launch/nonfinite_guard.py",
            "launch/graceful_stop.py",
            "launch/watchdog.py",
            "pretrain/quarantine.py",
        ],
        goal=[
            f"finished == {SEEDS}",
            "largest_loss_difference <= 1e-6",
            "repeated_or_skipped_rows == 0",
            "steps_left_out_by_others == 0",
            "mean_gap_to_faultless_high <= 0.01",
            "mean_gap_to_faultless_low >= -0.01",
            "least_goodput >= 0.9",
        ],
        note=f"Pretraining at toy size, {STEPS:,} steps, a checkpoint every {EVERY}; every fourth run on "
        "two ranks. Each is struck 2 to 5 times at random places (SIGKILL, SIGTERM, SIGUSR1 to a random "
        f"rank), {POISONED:.0%} of its steps hold a row of NaN, {BROKEN_PICTURES} of its 80 pictures "
        "cannot be read. The agent starts killed runs again; one that ended with status 75 gets the same "
        "command again. loss_difference: of any step, relative, to the run with the same rows and "
        "pictures, on as many ranks, that nothing stopped. gap_to_faultless: of the mean loss of the "
        "last tenth, relative, to a run that nothing happens to, in a shop that never had those pictures "
        "(a loss over other pairs is another quantity), mean over the runs with its 95 % bootstrap "
        "interval; faultless_spread: the same between three faultless runs that differ in their seed. "
        "goodput: the share of all steps done "
        "whose effect stayed. share_of_seconds is the time in those steps over all the time from the "
        "first start to the end, in which starting Python anew weighs as much as "
        "seconds_per_start / seconds_per_step steps.",
    )


def soak_all(world: Path, folder: Path) -> dict[str, Any]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        plain = list(pool.map(lambda seed: last_loss(world, folder, seed), range(3)))
        found = list(pool.map(lambda seed: soaked(world, folder, seed), range(SEEDS)))
    return {
        "finished": sum(run["finished"] for run in found),
        "kills": sum(run["kills"] for run in found),
        "signals": sum(run["signals"] for run in found),
        "steps_left_out": sum(run["left_out"] for run in found),
        "steps_left_out_by_others": sum(run["left_out_by_others"] for run in found),
        "broken_pictures": sum(run["broken_pictures"] for run in found),
        "largest_loss_difference": max(run["loss_difference"] for run in found),
        "repeated_or_skipped_rows": sum(run["wrong_rows"] for run in found),
        "faultless_spread": max(plain) / min(plain) - 1,
        "mean_gap_to_faultless": mean_interval(np.array([run["gap"] for run in found])),
        "largest_gap_to_faultless": max(abs(run["gap"]) for run in found),
        "least_goodput": min(run["goodput"] for run in found),
        "mean_goodput": float(np.mean([run["goodput"] for run in found])),
        "mean_share_of_seconds": float(np.mean([run["share_of_seconds"] for run in found])),
        "seconds_per_step": float(np.mean([run["seconds_per_step"] for run in found])),
        "seconds_per_start": float(np.mean([run["seconds_per_start"] for run in found])),
    }


def last_loss(world: Path, folder: Path, seed: int) -> float:
    """Mean of the last losses of a run without faults."""
    output = folder / f"plain-{seed}"
    live(world, output, {"steps": STEPS, "every": EVERY, "seed": seed}, [])
    return mean_of_last(losses_by_step(output))


def soaked(world: Path, folder: Path, seed: int, steps: int = STEPS) -> dict[str, float]:
    """Figures of one run with faults, compared with runs without."""
    rng = random.Random(seed)
    spoilt, lacking = folder / f"spoilt-{seed}", folder / f"lacking-{seed}"
    spoil_pictures(world, spoilt, lacking, rng)
    poisoned = sorted(rng.sample(range(steps), max(1, round(POISONED * steps))))
    run = {"steps": steps, "every": EVERY, "nan_steps": poisoned, "max_broken": 0.2}
    devices = 2 if seed % 4 == 3 else 1
    if devices > 1:
        run |= {"devices": devices, "strategy": "ddp"}
    strikes = draw_strikes(rng, steps, devices)
    calm, struck, faultless = (folder / f"{n}-{seed}" for n in ("calm", "struck", "faultless"))
    live(lacking, faultless, {**run, "nan_steps": []}, [])
    live(spoilt, calm, run, [])
    began = time.perf_counter()
    starts = live(spoilt, struck, run, strikes)
    seconds = time.perf_counter() - began
    assert facts(struck)["world_size"] == devices
    ours, theirs = losses_by_step(struck), losses_by_step(calm)
    expected = set(range(1, steps + 1)) - {step + 1 for step in poisoned}
    done = [line.split() for line in struck.with_suffix(".steps").read_text().splitlines()]
    kept = {int(step): float(took) for step, took in done}  # seconds of each step's last execution
    figures = {
        "finished": struck.exists() and len(kept) == steps,
        "kills": sum(what == signal.SIGKILL for _, what, _ in strikes),
        "signals": sum(what != signal.SIGKILL for _, what, _ in strikes),
        "left_out": steps - len(ours),
        "left_out_by_others": len(ours.keys() ^ expected) + len(theirs.keys() ^ expected),
        "broken_pictures": len((struck / "quarantine.jsonl").read_text().splitlines()),
        "loss_difference": max(abs(ours[step] / theirs[step] - 1) for step in ours),
        "wrong_rows": wrong_rows(struck, steps),
        "gap": mean_of_last(ours) / mean_of_last(losses_by_step(faultless)) - 1,
        "goodput": steps / len(done),
        "share_of_seconds": sum(kept.values()) / seconds,
        "seconds_per_step": sum(kept.values()) / steps,
        "seconds_per_start": (seconds - sum(float(took) for _, took in done)) / starts,
    }
    summary = f"{figures['goodput']:.3f} of steps kept, {figures['loss_difference']:.2g}"
    print(f"run {seed}: {len(strikes)} strikes, {summary}", flush=True)
    return figures


def spoil_pictures(world: Path, spoilt: Path, lacking: Path, rng: random.Random) -> None:
    """Copies a shop twice: some images are unreadable in `spoilt` and deleted in `lacking`."""
    for copy in (spoilt, lacking):
        shutil.copytree(world, copy)
    pictures = rng.sample(sorted((spoilt / "images").iterdir()), BROKEN_PICTURES)
    for number, path in enumerate(pictures):
        (lacking / "images" / path.name).unlink()
        content = path.read_bytes()
        cut = content[: len(content) // 3]
        path.write_bytes(cut if number % 2 else rng.randbytes(len(content)))


def draw_strikes(
    rng: random.Random, steps: int, devices: int
) -> list[tuple[float, signal.Signals, int]]:
    """Draws faults (step, signal, rank), at least one kill and one stop signal, sorted by step."""
    asks = (signal.SIGTERM, signal.SIGUSR1)
    kinds = [signal.SIGKILL, rng.choice(asks)]
    kinds += [rng.choice((signal.SIGKILL, *asks)) for _ in range(rng.randrange(4))]
    rng.shuffle(kinds)
    places = sorted(rng.uniform(0.02, 0.98) * steps for _ in kinds)
    return [
        (place, kind, rng.randrange(devices)) for place, kind in zip(places, kinds, strict=True)
    ]


def live(
    world: Path,
    output: Path,
    run: dict[str, Any],
    strikes: list[tuple[float, signal.Signals, int]],
) -> int:
    """Runs a training with faults to its end, restarting it as needed; returns the number of starts."""
    left = list(strikes)
    command = [sys.executable, "-m", "launch.submit.agent", "--standalone"]
    command += [f"--nproc-per-node={run.get('devices', 1)}", f"--max-restarts={RESTARTS}"]
    command += [str(SCRIPT), str(world), str(output), json.dumps(run)]
    started, deadline = 0, time.monotonic() + PATIENCE
    log = output.with_suffix(".log")
    while not output.exists():
        started += 1
        with log.open("a") as log_file:
            agent = subprocess.Popen(
                command,
                stderr=log_file,
                stdout=log_file,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
        try:
            while agent.poll() is None:
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                if left and steps_done(output) >= left[0][0]:
                    _, what, rank = left.pop(0)
                    time.sleep(random.random() * 0.02)
                    started += what == signal.SIGKILL
                    strike(output, what, rank, agent, deadline)
                time.sleep(0.01)
        finally:
            if agent.poll() is None:
                agent.terminate()
                agent.wait()
        if agent.returncode not in (0, RESUMABLE):
            raise AssertionError(log.read_text()[-3000:])
    assert not left, f"{output} ended before it was struck"
    stops = [event for event in events_of(output) if event["event"] == "stop"]
    assert len(stops) == sum(what != signal.SIGKILL for _, what, _ in strikes), stops
    return started


def events_of(output: Path) -> list[dict[str, Any]]:
    (work,) = output.with_name(f"{output.name}.work").iterdir()
    return read_events(work)


def steps_done(output: Path) -> int:
    """Number of the last step of the newest process; -1 before the first."""
    try:
        with output.with_suffix(".steps").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 100))
            lines = file.read().decode().splitlines()
    except OSError:
        return -1
    return int(lines[-1].split()[0]) if lines else -1


def strike(
    output: Path, what: signal.Signals, rank: int, agent: subprocess.Popen[bytes], deadline: float
) -> None:
    """Sends a signal to a rank; returns once another process has replaced it or the agent has ended."""
    place = output.with_name(f"{output.name}.rank{rank}.pid")
    struck = place.read_text()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(struck), what)
    while agent.poll() is None and place.read_text() in ("", struck):
        assert time.monotonic() < deadline, f"nothing followed {what.name} to {output}"
        time.sleep(0.01)


def mean_of_last(losses: dict[int, float]) -> float:
    """Mean loss over the last tenth of the steps."""
    return float(np.mean([losses[step] for step in sorted(losses)[-len(losses) // 10 :]]))


if __name__ == "__main__":
    main()
