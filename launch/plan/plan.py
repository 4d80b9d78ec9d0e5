"""The plan of a training: what each strategy needs of a device, and what to take."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split, load_split
from launch.plan.build import StageConfig
from launch.plan.checks import (
    Finding,
    check_data,
    check_disk,
    check_memory,
    check_precision,
    check_settings,
    summary,
)
from launch.plan.devices import Device, find_device
from launch.plan.footprint import Footprint, footprint, in_halves
from launch.plan.shards import Share, share, strategies_for
from pretrain.config import PretrainConfig

MARGIN = 0.1
"""Of a device's memory that is left free: allocators lose some of it to gaps."""
MOST_PARTS = 64


@dataclass
class Plan:
    stage: str
    device: Device
    ranks: int
    per_node: int
    chosen: str
    """The strategy that the settings ask for."""
    found: Footprint | None = None
    """None where what is wrong keeps it from being built."""
    shares: list[Share] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recommended: str | None = None
    """The simplest strategy that fits."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Others to change with it, by their keys."""
    rows: int | None = None
    """The largest data.rows that fits with it, about."""

    @property
    def share(self) -> Share | None:
        """Of the strategy asked for."""
        return next((share for share in self.shares if share.strategy == self.chosen), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "device": asdict(self.device),
            "ranks": self.ranks,
            "one_process": self.found and {**asdict(self.found), "peak": self.found.peak},
            "strategies": [
                {
                    **asdict(share),
                    "peak": share.peak,
                    "fits": fits(share, self.device, self.per_node),
                }
                for share in self.shares
            ],
            "recommended": self.recommended,
            "change": self.settings,
            "rows": self.rows,
            **summary(self.findings),
        }


def make_plan(config: StageConfig, device_name: str, output: Path) -> Plan:
    device = find_device(device_name)
    trainer = config.trainer
    ranks = max(1, trainer.devices * trainer.nodes)
    plan = Plan(
        "pretrain" if isinstance(config, PretrainConfig) else "finetune",
        device,
        ranks,
        max(1, trainer.devices),
        _plain(trainer.strategy, ranks),
    )
    plan.findings += check_settings(config) + check_precision(trainer.precision, device)
    catalog, split = load_split(config.catalog, config.split)
    plan.findings += check_data(config, catalog, split)
    if any(finding.wrong for finding in plan.findings):
        return plan  # what is built from such settings would say nothing
    try:
        plan.found = footprint(config, catalog, split, on_gpu=device.on_gpu)
    except VitrineError as mistake:
        plan.findings.append(Finding(str(mistake)))
        return plan
    plan.shares = _shares(config, plan.found, plan, strategies_for(ranks))
    if plan.share is None:
        plan.shares += _shares(config, plan.found, plan, (plan.chosen,))
    asked = plan.share
    assert asked is not None
    plan.findings += check_memory(asked.peak, plan.chosen, device)
    plan.findings += check_disk(_on_disk(config, catalog, plan.found), output)
    _recommend(plan, config, catalog, split)
    return plan


def _plain(strategy: str, ranks: int) -> str:
    return "ddp" if strategy == "auto" and ranks > 1 else strategy


def _shares(
    config: StageConfig, found: Footprint, plan: Plan, strategies: tuple[str, ...]
) -> list[Share]:
    halves = in_halves(config.trainer.precision)
    return [share(found, name, plan.ranks, plan.device, halves) for name in strategies]


def fits(share: Share, device: Device, per_node: int) -> bool:
    """With a margin; also into the machine's memory, where that is known."""
    room = share.peak <= (1 - MARGIN) * device.memory
    return room and (device.host is None or share.host * per_node <= (1 - MARGIN) * device.host)


def _recommend(plan: Plan, config: StageConfig, catalog: Catalog, split: Split) -> None:
    """The simplest strategy that fits as it is, else with the least change that makes one fit."""
    for change, changed in _gentler(config):
        found = plan.found
        if change:
            found = footprint(changed, catalog, split, on_gpu=plan.device.on_gpu, steps=2)
        assert found is not None
        for each in _shares(changed, found, plan, strategies_for(plan.ranks)):
            if fits(each, plan.device, plan.per_node):
                plan.recommended, plan.settings = each.strategy, change
                plan.rows = _most_rows(plan, changed, found, each, catalog, split)
                return


def _gentler(config: StageConfig) -> Iterator[tuple[dict[str, Any], StageConfig]]:
    """Settings that take less and less, and learn the same as long as they can."""
    yield {}, config
    if isinstance(config, PretrainConfig):
        parts = max(2, 2 * config.data.num_micro_batches)
        while parts <= MOST_PARTS:
            yield {"data.num_micro_batches": parts}, _with(config, num_micro_batches=parts)
            parts *= 4
        change = {"data.num_micro_batches": MOST_PARTS, "data.activation_checkpointing": True}
        yield change, _with(config, num_micro_batches=MOST_PARTS, activation_checkpointing=True)
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


def _most_rows(
    plan: Plan,
    config: StageConfig,
    found: Footprint,
    at_rows: Share,
    catalog: Catalog,
    split: Split,
) -> int:
    """Along the line through what some rows and half as many pass; rounded down to two digits."""
    rows = config.data.rows
    fewer = max(1, rows // 2)
    if fewer == rows:
        return rows
    half = footprint(_with(config, rows=fewer), catalog, split, on_gpu=plan.device.on_gpu, steps=2)
    slope = (found.passing - half.passing) / (rows - fewer)
    room = (1 - MARGIN) * plan.device.memory - at_rows.peak
    if slope <= 0:
        return rows
    most = rows + int(room / slope)
    digits = 10 ** max(0, len(str(most)) - 2)
    return max(1, most // digits * digits)


def _on_disk(config: StageConfig, catalog: Catalog, found: Footprint) -> dict[str, int]:
    """Bytes under the output: a checkpoint and the one being written beside it, and the artifact."""
    needs = {}
    if config.trainer.checkpoint_every:
        leaves_out = not isinstance(config, PretrainConfig)
        weights = found.trained_weights if leaves_out else found.weights
        needs["two checkpoints"] = 2 * (weights + found.optimizer + found.best + found.buffers)
    needs["weights"] = found.weights
    if isinstance(config, PretrainConfig):
        needs["vectors of its items"] = 4 * catalog.num_items * config.encoder.width
    else:
        needs["vectors of its items"] = found.buffers
    return needs
