"""Sharded training against one process, and resumed runs against uninterrupted ones, bit for bit.

python -m benchmarks.shards    # about 12 minutes on two cores
"""

import argparse
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from torch.utils.data import DataLoader

from benchmarks.record import write_record
from benchmarks.sources import CHECKPOINTS
from catalog.demo import build_demo_world
from pretrain.packing import PackedHistories, StepSampler, stack_rows
from tests.pretrain.runs import (
    differing_bytes,
    facts,
    largest_difference,
    losses,
    rows_learned,
    train,
)

STEPS, ROWS, EVERY, KILL_AT = 30, 4, 10, 17
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
ENGINES = {"ddp": "DistributedDataParallel"}
CHANGES = [("ddp", 2, 1), ("ddp", 1, 2)]
CHANGES += [
    (f"zero{stage}", *ranks) for stage in (2, 3) for ranks in ((2, 1), (1, 2), (2, 4), (4, 1))
]
FAR_ROW = 10_000_000


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        world = build_demo_world(Path(folder) / "world", num_items=80, num_users=60) / "home"
        figures |= compare_strategies(world, Path(folder))
        figures |= compare_resumed(world, Path(folder))
        figures |= compare_num_ranks(world, Path(folder))
    figures["seconds_to_row_10_million"] = seconds_to(FAR_ROW)
    write_record(
        "pretrain-shards",
        claim="Two ranks learn what one process learns; a killed run ends with the bytes of an "
        "uninterrupted one, and goes on as exactly on another number of ranks.",
        command="python -m benchmarks.shards",
        seeds=[0],
        figures=figures,
        sources=[
            *CHECKPOINTS,
            "launch/reshard.py",
            "launch/strategies.py",
            "pretrain/module.py",
            "pretrain/optim.py",
            "pretrain/packing.py",
        ],
        goal=[
            *(f"{strategy}_loss_difference <= 1e-4" for strategy in STRATEGIES),
            *(f"{name} == 0" for name in figures if name.endswith(("_bytes", "_rows"))),
            *(f"{name} <= 1e-6" for name in figures if name.endswith("_ranks_loss_difference")),
            "seconds_to_row_10_million <= 2",
        ],
        note=f"{STEPS} steps of pretraining at toy size on CPU with gloo, {ROWS} rows a step over all "
        f"ranks, a checkpoint every {EVERY} steps, SIGKILL in step {KILL_AT}; ZeRO-3 shards every weight. "
        "Loss differences are the largest of all steps, relative to one process; dropout is 0 there and "
        "0.2 where bytes are compared. World size, engine and stage are asserted. Rows are those read "
        "more often than once or not at all by the steps behind the final weights.",
    )


def compare_strategies(world: Path, folder: Path) -> dict[str, object]:
    """Loss differences of each strategy on two ranks to one process."""
    train(world, folder / "one", steps=STEPS, every=EVERY)
    figures: dict[str, object] = {}
    for strategy in STRATEGIES:
        output = folder / strategy
        train(world, output, steps=STEPS, every=EVERY, strategy=strategy, devices=2)
        check(output, strategy, 2, first_step=0)
        figures[f"{strategy}_loss_difference"] = largest_difference(output, folder / "one")
    return figures


def compare_resumed(world: Path, folder: Path) -> dict[str, object]:
    """Compares weights of killed and resumed runs with uninterrupted ones, with dropout."""
    figures: dict[str, object] = {}
    for strategy, devices in (("auto", 1), *((strategy, 2) for strategy in STRATEGIES)):
        whole, broken = folder / f"{strategy}-whole", folder / f"{strategy}-broken"
        run = {"steps": STEPS, "every": EVERY, "strategy": strategy, "devices": devices}
        train(world, whole, dropout=0.2, **run)
        train(world, broken, killed=True, kill_at=KILL_AT, dropout=0.2, **run)
        train(world, broken, dropout=0.2, **run)
        check(broken, strategy, devices, first_step=EVERY)
        figures[f"{strategy}_differing_bytes"] = differing_bytes(whole, broken)
        figures[f"{strategy}_repeated_or_skipped_rows"] = wrong_rows(broken)
    return figures


def compare_num_ranks(world: Path, folder: Path) -> dict[str, object]:
    """Compares runs that resume on another number of ranks with one process."""
    figures: dict[str, object] = {}
    for strategy, before, after in CHANGES:
        name = f"{strategy}_{before}_to_{after}_ranks"
        difference, rows = resumed_loss_difference(world, folder, strategy, before, after)
        figures[f"{name}_loss_difference"] = difference
        figures[f"{name}_repeated_or_skipped_rows"] = rows
    return figures


def resumed_loss_difference(
    world: Path, folder: Path, strategy: str, before: int, after: int
) -> tuple[float, int]:
    """Kills a run on `before` ranks and resumes it on `after`: largest loss difference to `folder/one`, and
    number of rows that were repeated or skipped."""
    output = folder / f"{strategy}-{before}-{after}"
    run = {"steps": STEPS, "every": EVERY, "strategy": strategy}
    train(world, output, killed=True, kill_at=KILL_AT, devices=before, **run)
    train(world, output, devices=after, **run)
    check(output, strategy, after, first_step=EVERY)
    return largest_difference(output, folder / "one"), wrong_rows(output)


def check(output: Path, strategy: str, devices: int, first_step: int) -> None:
    """Asserts world size, engine and strategy of a run, since launchers may fall back silently."""
    ran = facts(output)
    assert ran["world_size"] == devices
    assert ran["first_step"] == first_step
    if strategy != "auto":
        assert ran["engine"] == ENGINES.get(strategy, "DeepSpeedEngine")
        assert ran["kind"] == ("whole" if strategy == "ddp" else strategy)
    assert len(losses(output)) == STEPS


def wrong_rows(output: Path, steps: int = STEPS) -> int:
    rows = rows_learned(output)
    counts = np.bincount(rows, minlength=steps * ROWS)
    out_of_order = sum(one > other for one, other in pairwise(rows))
    return int(np.abs(counts - 1).sum()) + out_of_order


def seconds_to(row: int) -> float:
    """Seconds until the data loader yields the batch that begins at `row`, with a million users."""
    users, taken, rows = 1_000_000, 20, 100
    interactions = SimpleNamespace(
        offsets=np.arange(users + 1, dtype=np.int64) * taken,
        items=np.random.default_rng(0).integers(100_000, size=users * taken).astype(np.int32),
    )
    lengths = np.full(users, taken, dtype=np.int32)
    data = PackedHistories(interactions, lengths, 100_000, 32, seed=0)  # pyright: ignore[reportArgumentType]
    started = time.perf_counter()
    order = StepSampler(2 * row // rows, rows, first_step=row // rows)
    next(iter(DataLoader(data, batch_sampler=order, collate_fn=stack_rows)))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
