"""Elastic resume: killed on one number of ranks and resumed on another, at the same global batch.

python -m benchmarks.elastic    # about half an hour on two cores
"""

import os
import tempfile
from itertools import permutations
from pathlib import Path

from benchmarks.record import write_record
from benchmarks.shards import EVERY, KILL_AT, ROWS, STEPS, STRATEGIES, resumed_loss_difference
from benchmarks.sources import CHECKPOINTS
from catalog.demo import build_demo_world
from tests.pretrain.runs import train

CHANGES = [(s, *ranks) for s in STRATEGIES for ranks in permutations((1, 2, 4), 2)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        world = build_demo_world(Path(folder) / "world", num_items=80, num_users=60) / "home"
        figures = resume(world, Path(folder))
    write_record(
        "launch-elastic",
        claim="A run that was killed goes on with another number of ranks, under DDP and every stage of "
        "ZeRO, as one process would have, and reads each row once.",
        command="python -m benchmarks.elastic",
        seeds=[0],
        figures=figures,
        sources=[*CHECKPOINTS, "benchmarks/shards.py", "launch/reshard.py", "pretrain/packing.py"],
        goal=[
            f"changes == {len(CHANGES)}",
            "largest_loss_difference <= 1e-6",
            "repeated_or_skipped_rows == 0",
        ],
        note=f"{STEPS} steps of pretraining at toy size on CPU with gloo, {ROWS} rows a step over all "
        f"ranks, a checkpoint every {EVERY} steps, SIGKILL in step {KILL_AT}; every change among 1, 2 "
        "and 4 ranks; no dropout; ZeRO-3 shards every weight. Differences are the largest of all steps, "
        "relative to one process. World size, engine and stage are asserted. Rows are those read more "
        "often than once or not at all by the steps behind the final weights.",
    )


def resume(world: Path, folder: Path) -> dict[str, float]:
    train(world, folder / "one", steps=STEPS, every=EVERY)
    figures: dict[str, float] = {"changes": 0, "repeated_or_skipped_rows": 0}
    for strategy, before, after in CHANGES:
        difference, rows = resumed_loss_difference(world, folder, strategy, before, after)
        figures["changes"] += 1
        figures["repeated_or_skipped_rows"] += rows
        figures[f"{strategy}_{before}_to_{after}_loss_difference"] = difference
        print(f"{strategy} {before} → {after}: {difference:.2g}", flush=True)
    found = [value for name, value in figures.items() if name.endswith("_loss_difference")]
    figures["largest_loss_difference"] = max(found)
    return figures


if __name__ == "__main__":
    main()
