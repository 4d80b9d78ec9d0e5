"""Problems of a config that a run would meet late: each one line with value, rule and remedy.

All are collected, so that one run of the command shows all.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.catalog import Catalog
from catalog.splits import Split
from finetune.config import FinetuneConfig
from launch.memory_plan.build import StageConfig
from launch.memory_plan.devices import Device
from pretrain.config import PretrainConfig, TowerConfig
from pretrain.modalities.image import DEFAULT_SIZE

MOST_EPOCHS = 1000
FEW = 8
"""Slots of all ranks below which a contrastive loss has hardly any negatives."""


@dataclass(frozen=True)
class PlanProblem:
    message: str
    is_error: bool = True
    """False: a warning, for what works but is hardly intended."""


def check_settings(config: StageConfig) -> list[PlanProblem]:
    """Problems of the settings alone."""
    return [*_heads(config), *_widths(config), *_schedule(config), *_strategy(config)]


def check_data(config: StageConfig, catalog: Catalog, split: Split) -> list[PlanProblem]:
    """Problems of the settings with this catalog and split."""
    return [*_steps(config, split), *_negatives(config, catalog), *_rows(config, catalog)]


def _heads(config: StageConfig) -> list[PlanProblem]:
    problems = []
    towers: dict[str, TowerConfig] = {}
    if isinstance(config, PretrainConfig):
        towers = {
            **{n: t for n in ("text", "image") if (t := getattr(config.encoder, n))},
            **config.encoder.extra_modalities,
        }
    for name, tower in towers.items():
        width, heads = tower.config.get("hidden_size"), tower.config.get("num_attention_heads")
        where = (
            f"encoder.{name}" if name in ("text", "image") else f"encoder.extra_modalities.{name}"
        )
        if (
            not tower.model
            and isinstance(width, int)
            and isinstance(heads, int)
            and heads > 0
            and width % heads
        ):
            problems.append(
                PlanProblem(
                    f"{where}.config.hidden_size {width} is not divisible by {heads} heads; try "
                    f"{width - width % heads} or {width - width % heads + heads}"
                )
            )
        patch = tower.config.get("patch_size")
        size = tower.image_size or DEFAULT_SIZE
        if (
            name == "image"
            and not tower.model
            and isinstance(patch, int)
            and patch > 0
            and size % patch
        ):
            problems.append(
                PlanProblem(
                    f"{where}.image_size {size} is not divisible by patches of {patch}, so {size % patch} "
                    f"pixels at two sides are not seen; try {size - size % patch}",
                    is_error=False,
                )
            )
    return problems


def _widths(config: StageConfig) -> list[PlanProblem]:
    if isinstance(config, PretrainConfig):
        width, sequence = config.encoder.width, config.encoder.sequence
    else:
        width, sequence = config.width, config.sequence
    if not sequence or sequence.model or sequence.decoder or width % (2 * sequence.heads) == 0:
        return []
    step = 2 * sequence.heads
    return [
        PlanProblem(
            f"width {width} cannot be shared by {sequence.heads} attention heads of even width; try "
            f"{max(step, width - width % step)} or {width - width % step + step}"
        )
    ]


def _schedule(config: StageConfig) -> list[PlanProblem]:
    problems = []
    steps, share = config.trainer.max_steps, config.optimizer.warmup_share
    if not 0 <= share < 1:
        problems.append(
            PlanProblem(
                f"optimizer.warmup_share is {share:g}, so the rate of {steps:,} steps only rises; give "
                "a share from 0 to below 1"
            )
        )
    if config.trainer.checkpoint_every > steps > 0:
        problems.append(
            PlanProblem(
                f"trainer.checkpoint_every {config.trainer.checkpoint_every:,} is more than the "
                f"{steps:,} steps, so a stopped run starts at step 0; try {max(1, steps // 4):,}",
                is_error=False,
            )
        )
    if isinstance(config, FinetuneConfig) and config.validate_every > steps > 0:
        problems.append(
            PlanProblem(
                f"validate_every {config.validate_every:,} is more than the {steps:,} steps, so the last "
                f"weights are taken for the best; try {max(1, steps // 10):,}",
                is_error=False,
            )
        )
    return problems


def _strategy(config: StageConfig) -> list[PlanProblem]:
    trainer = config.trainer
    ranks = trainer.devices * trainer.nodes
    problems = []
    if trainer.devices < 1 or trainer.nodes < 1:
        problems.append(
            PlanProblem(
                f"trainer.devices {trainer.devices} × trainer.nodes {trainer.nodes} is no device; "
                "give 1 or more of each"
            )
        )
    if ranks == 1 and trainer.strategy in ("zero1", "zero2", "zero3"):
        problems.append(
            PlanProblem(
                f"trainer.strategy {trainer.strategy} shards over 1 device, which shards nothing; use "
                "auto, or an offload strategy where memory is short",
                is_error=False,
            )
        )
    if isinstance(config, PretrainConfig) and config.data.num_micro_batches < 1:
        problems.append(
            PlanProblem(
                f"data.num_micro_batches is {config.data.num_micro_batches}; give 1 or more"
            )
        )
    if config.data.rows < 1:
        problems.append(PlanProblem(f"data.rows is {config.data.rows}; give 1 or more"))
    return problems


def _steps(config: StageConfig, split: Split) -> list[PlanProblem]:
    read = int(split.train_end.sum())
    each = config.data.rows * _row_length(config) * config.trainer.accumulate
    each *= config.trainer.devices * config.trainer.nodes
    epochs = config.trainer.max_steps * each / max(1, read)
    if epochs <= MOST_EPOCHS:
        return []
    return [
        PlanProblem(
            f"trainer.max_steps {config.trainer.max_steps:,} × {each:,} slots a step read the {read:,} "
            f"training interactions {epochs:,.0f} times; at most {MOST_EPOCHS:,} are of use: try "
            f"{max(1, int(MOST_EPOCHS * read / each)):,}",
            is_error=False,
        )
    ]


def _row_length(config: StageConfig) -> int:
    if isinstance(config, PretrainConfig):
        return config.data.row_length
    return config.sequence.max_history if config.sequence else 32


def _negatives(config: StageConfig, catalog: Catalog) -> list[PlanProblem]:
    ranks = config.trainer.devices * config.trainer.nodes
    if isinstance(config, PretrainConfig):
        slots = config.data.rows * config.data.row_length * ranks
        if slots >= FEW:
            return []
        return [
            PlanProblem(
                f"data.rows {config.data.rows} × data.row_length {config.data.row_length} on {ranks} "
                f"devices are {slots} items to tell apart, and contrast needs {FEW} or more; raise "
                "data.rows"
            )
        ]
    drawn = config.num_negatives(catalog.num_items)
    if drawn and drawn > catalog.num_items:
        return [
            PlanProblem(
                f"negatives {drawn:,} are more than the {catalog.num_items:,} items of "
                f"{catalog.name}; use --loss softmax, which takes them all, or fewer"
            )
        ]
    return []


def _rows(config: StageConfig, catalog: Catalog) -> list[PlanProblem]:
    if isinstance(config, FinetuneConfig):
        if config.data.encode_items > catalog.num_items:
            return [
                PlanProblem(
                    f"data.encode_items {config.data.encode_items:,} are more than the "
                    f"{catalog.num_items:,} items of {catalog.name}, all of which every step then reads",
                    is_error=False,
                )
            ]
        return []
    length, most = config.data.row_length, config.encoder.sequence.max_history
    if length <= most:
        return []
    return [
        PlanProblem(
            f"data.row_length {length} is more than the {most} items that encoder.sequence.max_history "
            f"lets it read later, so positions are trained that are never used; try {most}",
            is_error=False,
        )
    ]


def check_precision(precision: str, device: Device) -> list[PlanProblem]:
    if precision.startswith("bf16") and not device.bfloat16:
        return [
            PlanProblem(
                f"trainer.precision {precision} is slow on {device.name}, which has no bfloat16; use "
                "16-mixed"
            )
        ]
    if precision.startswith("16") and not device.on_gpu:
        return [
            PlanProblem(
                f"trainer.precision {precision} is made for GPUs, and {device.name} is none; use "
                "bf16-mixed or 32-true"
            )
        ]
    return []


def check_memory(peak: int, strategy: str, device: Device) -> list[PlanProblem]:
    if peak <= device.memory:
        return []
    return [
        PlanProblem(
            f"{strategy} needs {peak / 2**30:.1f} GiB of each device, and {device.name} has "
            f"{device.memory / 2**30:.1f}; see the recommendation"
        )
    ]


def check_disk(needs: dict[str, int], output: Path) -> list[PlanProblem]:
    """`needs`: bytes that will lie at `output`, by what they are."""
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, sum(needs.values())
    if needed <= free:
        return []
    listed = ", ".join(f"{what} {size / 2**30:.1f}" for what, size in needs.items())
    return [
        PlanProblem(
            f"{output} needs {needed / 2**30:.1f} GiB ({listed}), and {place} has {free / 2**30:.1f} free; "
            "choose another --output, or make room"
        )
    ]


def summary(problems: list[PlanProblem]) -> dict[str, Any]:
    return {
        "errors": [problem.message for problem in problems if problem.is_error],
        "warnings": [problem.message for problem in problems if not problem.is_error],
    }
