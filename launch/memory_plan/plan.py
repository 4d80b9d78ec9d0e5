"""The memory plan of a training: what each strategy needs per device, and which fits."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split, load_split
from finetune.config import FinetuneConfig
from generate.image.config import ImageConfig
from launch.memory_plan.build import PlanConfig, StageConfig
from launch.memory_plan.checks import (
    PlanProblem,
    check_data,
    check_disk,
    check_memory,
    check_precision,
    check_settings,
    summary,
)
from launch.memory_plan.devices import Device, find_device
from launch.memory_plan.footprint import Footprint, footprint, is_half_precision
from launch.memory_plan.image_stage import bytes_on_disk, smaller_image_configs
from launch.memory_plan.sharding import ShardedFootprint, shard_footprint, strategies_for
from pretrain.config import PretrainConfig

MARGIN = 0.1
"""Of a device's memory that is left free: allocators lose some of it to gaps."""
MAX_MICRO_BATCHES = 64
STAGE_NAMES: dict[type, str] = {
    PretrainConfig: "pretrain",
    FinetuneConfig: "finetune",
    ImageConfig: "train-image",
}


@dataclass
class MemoryPlan:
    stage: str
    device: Device
    ranks: int
    devices_per_node: int
    chosen: str
    """The configured strategy."""
    footprint: Footprint | None = None
    """None where an error keeps the stage from being built."""
    sharded: list[ShardedFootprint] = field(default_factory=list)
    problems: list[PlanProblem] = field(default_factory=list)
    recommended: str | None = None
    """The simplest strategy that fits."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Key → value of the settings to change for it to fit."""
    rows: int | None = None
    """Approximately the largest data.rows that fits with it."""

    @property
    def share(self) -> ShardedFootprint | None:
        """The footprint under the configured strategy."""
        return next((share for share in self.sharded if share.strategy == self.chosen), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "device": asdict(self.device),
            "ranks": self.ranks,
            "one_process": self.footprint
            and {**asdict(self.footprint), "peak": self.footprint.peak},
            "strategies": [
                {
                    **asdict(share),
                    "peak": share.peak,
                    "fits": fits(share, self.device, self.devices_per_node),
                }
                for share in self.sharded
            ],
            "recommended": self.recommended,
            "change": self.settings,
            "rows": self.rows,
            **summary(self.problems),
        }


def make_memory_plan(config: PlanConfig, device_name: str, output: Path) -> MemoryPlan:
    device = find_device(device_name)
    trainer = config.trainer
    ranks = max(1, trainer.devices * trainer.nodes)
    plan = MemoryPlan(
        STAGE_NAMES[type(config)],
        device,
        ranks,
        max(1, trainer.devices),
        _plain(trainer.strategy, ranks),
    )
    plan.problems += check_precision(trainer.precision, device)
    catalog, split = load_split(config.catalog, config.split)
    if not isinstance(config, ImageConfig):
        plan.problems += check_settings(config) + check_data(config, catalog, split)
    if any(problem.is_error for problem in plan.problems):
        return plan  # what is built from such settings would say nothing
    try:
        plan.footprint = footprint(config, catalog, split, on_gpu=device.on_gpu)
    except VitrineError as mistake:
        plan.problems.append(PlanProblem(str(mistake)))
        return plan
    plan.sharded = _shares(config, plan.footprint, plan, _strategies(config, ranks))
    if plan.share is None:
        plan.sharded += _shares(config, plan.footprint, plan, (plan.chosen,))
    chosen = plan.share
    assert chosen is not None
    plan.problems += check_memory(chosen.peak, plan.chosen, device)
    plan.problems += check_disk(_on_disk(config, catalog, plan.footprint), output)
    _recommend(plan, config, catalog, split)
    return plan


def _plain(strategy: str, ranks: int) -> str:
    return "ddp" if strategy == "auto" and ranks > 1 else strategy


def _shares(
    config: PlanConfig, single: Footprint, plan: MemoryPlan, strategies: tuple[str, ...]
) -> list[ShardedFootprint]:
    halves = is_half_precision(config.trainer.precision)
    return [shard_footprint(single, name, plan.ranks, plan.device, halves) for name in strategies]


def _strategies(config: PlanConfig, ranks: int) -> tuple[str, ...]:
    known = strategies_for(ranks)
    if isinstance(config, ImageConfig):  # the EMA of its weights is not sharded
        return tuple(name for name in known if not name.startswith("zero3"))
    return known


def fits(share: ShardedFootprint, device: Device, devices_per_node: int) -> bool:
    """Whether it fits the device with a margin, and the machine's memory, where that is known."""
    room = share.peak <= (1 - MARGIN) * device.memory
    return room and (
        device.host is None or share.host * devices_per_node <= (1 - MARGIN) * device.host
    )


def _recommend(plan: MemoryPlan, config: PlanConfig, catalog: Catalog, split: Split) -> None:
    """Sets the simplest strategy that fits, with the smallest change of settings that makes one fit."""
    for change, changed in _smaller_configs(config):
        single = plan.footprint
        if change:
            single = footprint(changed, catalog, split, on_gpu=plan.device.on_gpu, steps=2)
        assert single is not None
        for each in _shares(changed, single, plan, _strategies(config, plan.ranks)):
            if fits(each, plan.device, plan.devices_per_node):
                plan.recommended, plan.settings = each.strategy, change
                plan.rows = _max_rows(plan, changed, single, each, catalog, split)
                return


def _smaller_configs(config: PlanConfig) -> Iterator[tuple[dict[str, Any], PlanConfig]]:
    """Changes in order of decreasing memory, first those that give the same gradients."""
    if isinstance(config, ImageConfig):
        yield from smaller_image_configs(config)
        return
    yield {}, config
    if isinstance(config, PretrainConfig):
        count = max(2, 2 * config.data.num_micro_batches)
        while count <= MAX_MICRO_BATCHES:
            yield {"data.num_micro_batches": count}, _with(config, num_micro_batches=count)
            count *= 4
        change = {
            "data.num_micro_batches": MAX_MICRO_BATCHES,
            "data.activation_checkpointing": True,
        }
        yield (
            change,
            _with(config, num_micro_batches=MAX_MICRO_BATCHES, activation_checkpointing=True),
        )
        return
    items, rows = config.data.encode_items, config.data.rows
    while items > 8:
        items //= 4
        yield {"data.encode_items": items}, _with(config, encode_items=items)
    while rows > 1:
        rows //= 4
        change = {"data.encode_items": items, "data.rows": max(1, rows)}
        yield change, _with(config, encode_items=items, rows=max(1, rows))


def _with(config: StageConfig, **data: Any) -> StageConfig:
    return replace(config, data=replace(config.data, **data))  # type: ignore[type-var]


def _max_rows(
    plan: MemoryPlan,
    config: PlanConfig,
    single: Footprint,
    at_rows: ShardedFootprint,
    catalog: Catalog,
    split: Split,
) -> int | None:
    """Extrapolates linearly from the activations of all and of half the rows; rounded down to two digits."""
    if isinstance(config, ImageConfig):
        return None
    rows = config.data.rows
    fewer = max(1, rows // 2)
    if fewer == rows:
        return rows
    half = footprint(_with(config, rows=fewer), catalog, split, on_gpu=plan.device.on_gpu, steps=2)
    slope = (single.activations - half.activations) / (rows - fewer)
    room = (1 - MARGIN) * plan.device.memory - at_rows.peak
    if slope <= 0:
        return rows
    most = rows + int(room / slope)
    digits = 10 ** max(0, len(str(most)) - 2)
    return max(1, most // digits * digits)


def _on_disk(config: PlanConfig, catalog: Catalog, single: Footprint) -> dict[str, int]:
    """Bytes under the output: a checkpoint and the one being written beside it, and the artifact."""
    needs = {}
    if config.trainer.checkpoint_every:
        # Where towers may be frozen, checkpoints leave them out.
        excludes_frozen = not isinstance(config, PretrainConfig)
        weights = single.trained_weights if excludes_frozen else single.weights
        needs["two checkpoints"] = 2 * (weights + single.optimizer + single.best + single.buffers)
    if isinstance(config, ImageConfig):
        needs["trained weights"] = single.trained_weights
        return needs | bytes_on_disk(config, catalog)
    needs["weights"] = single.weights
    if isinstance(config, PretrainConfig):
        needs["vectors of its items"] = 4 * catalog.num_items * config.encoder.width
    else:
        needs["vectors of its items"] = single.buffers
    return needs
