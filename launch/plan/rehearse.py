"""One rank of a run of many, in this process, with nobody at the other end.

torch's `fake` process group says that there are N ranks and answers at once, with what was sent. So
all that depends on the rank and on how many there are is gone through: rows, shapes of what is
gathered, DDP's buckets. What is computed means nothing, and no loss is told.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from catalog.errors import VitrineError
from catalog.splits import load_split
from launch.plan.build import StageConfig, build
from launch.plan.devices import find_device
from launch.plan.footprint import footprint, in_halves, quiet
from launch.plan.shards import share
from launch.plan.table import told
from launch.trainer import build_trainer
from pretrain.config import PretrainConfig
from pretrain.optim import make_optimizer
from pretrain.rows import StepOrder, order_for

SHOWN = 8
"""Ranks whose rows are listed; all are checked."""


@dataclass
class Traffic:
    """What ranks tell each other in one step: name → how often, bytes sent, shapes."""

    steps: list[dict[str, dict[str, Any]]] = field(default_factory=list)

    def begin(self) -> None:
        self.steps.append({})

    def count(self, name: str, tensor: Tensor) -> None:
        if not self.steps:
            return
        entry = self.steps[-1].setdefault(name, {"calls": 0, "bytes": 0, "shapes": []})
        entry["calls"] += 1
        entry["bytes"] += tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        if shape not in entry["shapes"]:
            entry["shapes"].append(shape)


def rehearse(
    config: StageConfig, *, nodes: int, devices: int, rank: int = 0, steps: int = 2
) -> dict[str, Any]:
    """What `report` tells, as plain values. VitrineError for a rank that is none."""
    ranks = nodes * devices
    if nodes < 1 or devices < 1:
        raise VitrineError(f"nodes {nodes} × devices {devices} is no world; give 1 or more of each")
    if not 0 <= rank < ranks:
        raise VitrineError(f"rank {rank} is none of {ranks}; give one from 0 to {ranks - 1}")
    if steps < 1:
        raise VitrineError(f"steps is {steps}; give 1 or more")
    catalog, split = load_split(config.catalog, config.split)
    trainer = replace(config.trainer, devices=devices, nodes=nodes)
    config = replace(config, trainer=trainer)
    traffic, read = Traffic(), []
    with tempfile.TemporaryDirectory() as folder, quiet(), alone_among(ranks, rank):
        pl.seed_everything(trainer.seed, verbose=False)
        built = build(config, catalog, split)
        alone = replace(
            trainer,
            max_steps=steps,
            devices=1,
            nodes=1,
            strategy="auto",
            accelerator="cpu",
            checkpoint_every=0,
            progress=False,
        )
        strategy: Any = FakeDDP(ranks, rank, traffic)
        runner = build_trainer(
            alone, Path(folder), "", callbacks=[StepMarks(traffic)], strategy=strategy
        )
        rows = config.data.rows

        def collate(numbers: list[int]) -> Any:
            read.append(numbers)
            return built.batch(numbers[0] // rows)

        loader = DataLoader(
            Numbers(ranks * rows * steps * trainer.accumulate),
            batch_sampler=order_for(runner, rows),
            collate_fn=collate,
        )
        try:
            with counted(traffic):
                runner.fit(built.module, loader)
        except RuntimeError as error:
            if "were not used in producing the loss" not in str(error):
                raise
            raise VitrineError(_unused(built.module)) from error
        taken = runner.global_step
        weights = list(built.module.parameters())
    found = _world(config, ranks, rank, steps)
    assert read == [found["rows"][step][rank] for step in range(len(read))]
    found |= {
        "strategy": trainer.strategy,
        "steps_taken": taken,
        "read_here": read,
        "traffic": traffic.steps,
        "parameters": sum(p.numel() for p in weights),
        "trained": sum(p.numel() for p in weights if p.requires_grad),
        "schedule": schedule(config),
        "shards": None,
    }
    if trainer.strategy.startswith("zero"):
        device = find_device("here")
        alike = footprint(config, catalog, split, steps=1)
        part = share(alike, trainer.strategy, ranks, device, in_halves(trainer.precision))
        found["shards"] = {
            name: getattr(part, name) for name in ("weights", "gradients", "optimizer", "host")
        }
    return found


def _unused(module: torch.nn.Module) -> str:
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    return (
        f"{len(without)} weights that learn get no gradient in a step ({', '.join(without[:3])}), and "
        "several ranks wait for each; let them stand still, or train on one device"
    )


def _world(config: StageConfig, ranks: int, rank: int, steps: int) -> dict[str, Any]:
    """The rows of all ranks in the first steps, checked."""
    rows, accumulate = config.data.rows, config.trainer.accumulate
    orders = [
        list(StepOrder(steps * accumulate, rows, rank=r, num_ranks=ranks)) for r in range(ranks)
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
    """The learning rate at some steps, and the steps after which something is written or looked at."""
    steps = config.trainer.max_steps
    weight = torch.nn.Parameter(torch.zeros(1))
    made = make_optimizer([weight], config.optimizer, steps)
    rate: Callable[[int], float] = made["lr_scheduler"]["scheduler"].lr_lambdas[0]
    warm = max(1, round(config.optimizer.warmup_share * steps))
    places = sorted({0, warm - 1, steps // 4, steps // 2, 3 * steps // 4, max(0, steps - 1)})
    every = config.trainer.checkpoint_every
    told: dict[str, Any] = {
        "learning_rate": {n: config.optimizer.learning_rate * rate(n) for n in places},
        "checkpoints": list(range(every, steps + 1, every)) if every else [],
    }
    if not isinstance(config, PretrainConfig):
        looks = list(range(config.validate_every, steps + 1, config.validate_every))
        told["validation"] = sorted({*looks, steps})
    return told


class Numbers(Dataset[int]):
    """The rows' own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row


class StepMarks(pl.Callback):
    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic

    def on_train_batch_start(self, *_: Any) -> None:
        self.traffic.begin()


class FakeEnvironment(ClusterEnvironment):
    """Says that this is one of many, all on one node, which somebody else started."""

    def __init__(self, ranks: int, rank: int) -> None:
        super().__init__()
        self.ranks, self.rank = ranks, rank

    creates_processes_externally = True  # type: ignore[assignment]
    main_address = "127.0.0.1"  # type: ignore[assignment]
    main_port = 0  # type: ignore[assignment]

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.ranks

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.rank

    def teardown(self) -> None:
        pass


class FakeDDP(DDPStrategy):
    """Lightning's, with the process group that is there already, and each bucket counted."""

    def __init__(self, ranks: int, rank: int, traffic: Traffic) -> None:
        super().__init__(
            cluster_environment=FakeEnvironment(ranks, rank), process_group_backend="fake"
        )
        self.traffic = traffic

    @override
    def set_world_ranks(self) -> None:
        pass

    @property
    @override
    def global_rank(self) -> int:
        assert isinstance(self.cluster_environment, FakeEnvironment)
        return self.cluster_environment.rank

    @property
    @override
    def world_size(self) -> int:
        assert isinstance(self.cluster_environment, FakeEnvironment)
        return self.cluster_environment.ranks

    @override
    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj  # nobody would send it

    @override
    def setup(self, trainer: pl.Trainer) -> None:
        super().setup(trainer)
        if isinstance(self.model, torch.nn.parallel.DistributedDataParallel):
            self.model.register_comm_hook(self.traffic, _count_bucket)


def _count_bucket(
    traffic: Traffic,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage] – DDP insists on it
) -> torch.futures.Future[Tensor]:
    traffic.count("gradient buckets (all_reduce)", bucket.buffer())
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@contextmanager
def alone_among(ranks: int, rank: int) -> Iterator[None]:
    """A process group of `ranks` in which nobody else is."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RuntimeError("a process group is there already; rehearse in a process of its own")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def counted(traffic: Traffic) -> Iterator[None]:
    """What the objectives send is counted, and what they receive is what was sent: never garbage."""
    gather, reduce = dist.all_gather, dist.all_reduce

    def all_gather(parts: list[Tensor], rows: Tensor, *rest: Any, **more: Any) -> Any:
        traffic.count("all_gather", rows)
        done = gather(parts, rows, *rest, **more)
        for part in parts:
            part.copy_(rows)
        return done

    def all_reduce(tensor: Tensor, *rest: Any, **more: Any) -> Any:
        traffic.count("all_reduce", tensor)
        return reduce(tensor, *rest, **more)

    def batch_isend_irecv(operations: list[Any]) -> Any:
        for sent, received in zip(operations[::2], operations[1::2], strict=True):
            traffic.count("send to the next rank", sent.tensor)
            received.tensor.copy_(sent.tensor)
        return []

    with ExitStack() as stack:
        stack.enter_context(patch.object(dist, "all_gather", all_gather))
        stack.enter_context(patch.object(dist, "all_reduce", all_reduce))
        stack.enter_context(patch.object(dist, "batch_isend_irecv", batch_isend_irecv))
        yield


def report(found: dict[str, Any]) -> str:
    ranks, steps = found["ranks"], found["rows"]
    lines = [f"{ranks} ranks, of which this is {found['rank']}; collectives are answered by nobody"]
    for number, step in enumerate(steps):
        each = [f"{rank}: {batch[0]}–{batch[-1]}" for rank, batch in enumerate(step[:SHOWN])]
        more = " …" if len(step) > SHOWN else ""
        lines.append(f"batch {number}: rows by rank  {'  '.join(each)}{more}")
    lines.append(
        f"rows are {'disjoint' if found['disjoint'] else 'READ TWICE'} and "
        f"{'cover' if found['covered'] else 'DO NOT COVER'} the global batch; every rank takes "
        f"{' or '.join(map(str, found['batches_of_each_rank']))} batches"
    )
    for number, step in enumerate(found["traffic"]):
        for name, entry in sorted(step.items()):
            shapes = ", ".join("×".join(map(str, shape)) or "1" for shape in entry["shapes"][:6])
            lines.append(
                f"batch {number}: {name}: {entry['calls']} times, {told(entry['bytes'])} sent; {shapes}"
            )
    lines.append(f"{found['parameters']:,} parameters, of which {found['trained']:,} learn")
    if found["shards"]:
        parts = ", ".join(f"{name} {told(size)}" for name, size in found["shards"].items())
        lines.append(
            f"under {found['strategy']} each rank holds: {parts} (computed: DeepSpeed is not rehearsed, "
            "the steps above were taken under DDP)"
        )
    rates = found["schedule"]
    told_rates = ", ".join(f"{step:,}: {rate:.2g}" for step, rate in rates["learning_rate"].items())
    lines.append(f"learning rate by step: {told_rates}")
    for what in ("checkpoints", "validation"):
        if rates.get(what):
            lines.append(f"{what} after steps {_brief(rates[what])}")
    return "\n".join(lines)


def _brief(steps: list[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    return ", ".join(shown if len(shown) < 6 else [*shown[:3], "…", *shown[-2:]])
