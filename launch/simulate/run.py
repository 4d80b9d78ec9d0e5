"""Simulates one rank of a multi-rank run in this process, without the other ranks.

torch's `fake` process group claims N ranks and answers at once, with what was sent. Everything that
depends on the rank and the world size is run: rows, shapes of collectives, DDP's buckets. The values
are meaningless, and no loss is reported.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split, load_split
from launch.memory_plan.build import StageConfig, build_stage
from launch.memory_plan.devices import find_device
from launch.memory_plan.footprint import footprint, is_half_precision, silent_warnings
from launch.memory_plan.sharding import shard_footprint
from launch.simulate.collectives import StepBoundaries, Traffic, count_collectives
from launch.simulate.fake_ranks import FakeDDP, fake_process_group
from launch.trainer import build_trainer
from pretrain.config import PretrainConfig, TrainerConfig
from pretrain.optim import make_optimizer
from pretrain.packing import StepSampler, step_sampler


@dataclass
class Steps:
    """What the simulated rank did."""

    taken: int
    rows: list[list[int]]
    """Rows of each batch it read."""
    traffic: Traffic
    num_parameters: int
    num_trained: int


def simulate(
    config: StageConfig, *, nodes: int, devices: int, rank: int = 0, steps: int = 2
) -> dict[str, Any]:
    """What `launch.simulate.report` prints, as plain values. VitrineError for an impossible rank."""
    ranks = nodes * devices
    if nodes < 1 or devices < 1:
        raise VitrineError(f"nodes {nodes} × devices {devices} is no world; give 1 or more of each")
    if not 0 <= rank < ranks:
        raise VitrineError(f"rank {rank} is none of {ranks}; give one from 0 to {ranks - 1}")
    if steps < 1:
        raise VitrineError(f"steps is {steps}; give 1 or more")
    catalog, split = load_split(config.catalog, config.split)
    config = replace(config, trainer=replace(config.trainer, devices=devices, nodes=nodes))
    done = take_steps(config, catalog, split, ranks, rank, steps)
    world = rows_of_world(config, ranks, rank, steps)
    assert done.rows == [world["rows"][step][rank] for step in range(len(done.rows))]
    return world | {
        "strategy": config.trainer.strategy,
        "steps_taken": done.taken,
        "read_here": done.rows,
        "traffic": done.traffic.steps,
        "parameters": done.num_parameters,
        "trained": done.num_trained,
        "schedule": schedule(config),
        "shards": shards(config, catalog, split, ranks),
    }


def take_steps(
    config: StageConfig, catalog: Catalog, split: Split, ranks: int, rank: int, steps: int
) -> Steps:
    """Trains for `steps` as this rank of `ranks`, under DDP on the CPU."""
    traffic, read, rows = Traffic(), [], config.data.rows
    with (
        tempfile.TemporaryDirectory() as folder,
        silent_warnings(),
        fake_process_group(ranks, rank),
    ):
        pl.seed_everything(config.trainer.seed, verbose=False)
        stage = build_stage(config, catalog, split)
        strategy: Any = FakeDDP(ranks, rank, traffic)
        trainer = build_trainer(
            _one_process(config.trainer, steps),
            Path(folder),
            "",
            callbacks=[StepBoundaries(traffic)],
            strategy=strategy,
        )

        def collate(numbers: list[int]) -> Any:
            read.append(numbers)
            return stage.batch(numbers[0] // rows)

        loader = DataLoader(
            RowNumbers(ranks * rows * steps * config.trainer.accumulate),
            batch_sampler=step_sampler(trainer, rows),
            collate_fn=collate,
        )
        try:
            with count_collectives(traffic):
                trainer.fit(stage.module, loader)
        except RuntimeError as error:
            if "were not used in producing the loss" not in str(error):
                raise
            raise VitrineError(_unused(stage.module)) from error
        weights = list(stage.module.parameters())
        return Steps(
            trainer.global_step,
            read,
            traffic,
            sum(p.numel() for p in weights),
            sum(p.numel() for p in weights if p.requires_grad),
        )


def _one_process(config: TrainerConfig, steps: int) -> TrainerConfig:
    """The trainer's settings for one process on the CPU; the strategy is put in place separately."""
    return replace(
        config,
        max_steps=steps,
        devices=1,
        nodes=1,
        strategy="auto",
        device="auto",
        accelerator="cpu",
        checkpoint_every=0,
        progress=False,
    )


def shards(
    config: StageConfig, catalog: Catalog, split: Split, ranks: int
) -> dict[str, int] | None:
    """Bytes that each rank holds under ZeRO, computed; None under other strategies."""
    strategy, half = config.trainer.strategy, is_half_precision(config.trainer.precision)
    if not strategy.startswith("zero"):
        return None
    whole = footprint(config, catalog, split, steps=1)
    sharded = shard_footprint(whole, strategy, ranks, find_device("here"), half)
    return {name: getattr(sharded, name) for name in ("weights", "gradients", "optimizer", "host")}


def _unused(module: torch.nn.Module) -> str:
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    return (
        f"{len(without)} trained weights get no gradient in a step ({', '.join(without[:3])}), and "
        "DDP waits for each; freeze them, or train on one device"
    )


def rows_of_world(config: StageConfig, ranks: int, rank: int, steps: int) -> dict[str, Any]:
    """The rows of all ranks in the first steps, checked."""
    rows, accumulate = config.data.rows, config.trainer.accumulate
    orders = [
        list(StepSampler(steps * accumulate, rows, rank=r, num_ranks=ranks)) for r in range(ranks)
    ]
    by_step = [list(batches) for batches in zip(*orders, strict=True)]
    covered = [sorted(row for batch in step for row in batch) for step in by_step]
    whole = [
        list(range(step * ranks * rows, (step + 1) * ranks * rows)) for step in range(len(by_step))
    ]
    return {
        "ranks": ranks,
        "rank": rank,
        "rows": by_step,
        "disjoint": all(len(set(rows)) == len(rows) for rows in covered),
        "covered": covered == whole,
        "batches_of_each_rank": sorted({len(order) for order in orders}),
    }


def schedule(config: StageConfig) -> dict[str, Any]:
    """The learning rate at some steps, and the steps after which checkpoints and validation come."""
    steps = config.trainer.max_steps
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer([weight], config.optimizer, steps)
    rate: Callable[[int], float] = optimizer["lr_scheduler"]["scheduler"].lr_lambdas[0]
    warm = max(1, round(config.optimizer.warmup_share * steps))
    places = sorted({0, warm - 1, steps // 4, steps // 2, 3 * steps // 4, max(0, steps - 1)})
    every = config.trainer.checkpoint_every
    result: dict[str, Any] = {
        "learning_rate": {n: config.optimizer.learning_rate * rate(n) for n in places},
        "checkpoints": list(range(every, steps + 1, every)) if every else [],
    }
    if not isinstance(config, PretrainConfig):
        looks = list(range(config.validate_every, steps + 1, config.validate_every))
        result["validation"] = sorted({*looks, steps})
    return result


class RowNumbers(Dataset[int]):
    """Dataset whose row r is the number r."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row
