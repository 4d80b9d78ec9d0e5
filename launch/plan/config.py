"""Options of `vitrine launch plan` and `rehearse`, and settings of whichever stage is named."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.errors import VitrineError, nearest
from finetune.config import FinetuneConfig
from launch.settings import load_settings
from pretrain.config import PretrainConfig

STAGES: dict[str, type] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


@dataclass(frozen=True)
class PlanOptions:
    stage: str
    """pretrain or finetune."""
    config: str | None = None
    """The stage's settings, as for the stage itself."""
    device: str = "here"
    """a100-40, a100-80, h100, h200, or what this machine has (here)."""
    output: str = "runs/plan"
    """Where the stage would write; its disk is looked at."""
    probe: bool = False
    """Take two real steps here, and set what they hold beside what was predicted."""
    json: bool = False
    """For machines."""


@dataclass(frozen=True)
class RehearseOptions:
    stage: str
    """pretrain or finetune."""
    config: str | None = None
    """The stage's settings, as for the stage itself."""
    nodes: int = 0
    """Machines; 0: as trainer.nodes says."""
    devices: int = 0
    """Devices on each; 0: as trainer.devices says."""
    rank: int = 0
    """Which of all ranks this process is."""
    steps: int = 2
    """Steps to take."""
    json: bool = False
    """For machines."""


@dataclass(frozen=True)
class AnyStage:
    """What the command line says of a stage's settings, before it is known which stage is meant.

    Each field stands for the stage's own of that name; `vitrine STAGE --help` has them all.
    """

    catalog: dict[str, Any] = field(default_factory=dict)
    """See `vitrine pretrain --help` and `vitrine finetune --help`, as for all that follow."""
    split: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] | str = field(default_factory=dict)
    objectives: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] | None = None
    lora: dict[str, Any] = field(default_factory=dict)
    semantic: dict[str, Any] = field(default_factory=dict)
    neighbours: dict[str, Any] = field(default_factory=dict)
    transfer: str = ""
    features: str = ""
    words: str | bool = ""
    id_width: str | int = ""
    only: str = ""
    vectors: str = ""
    allow_seen: str | bool = ""
    loss: str = ""
    negatives: str | int = ""
    width: str | int = ""
    dropout: str | float | None = ""
    tower_rate: str | float = ""
    alignment: str | float = ""
    validate_every: str | int = ""
    validation_people: str | int = ""


def stage_settings(stage: str, config: str | None, given: AnyStage) -> Any:
    """The stage's settings from its file and what the command line says; VitrineError as there."""
    if stage not in STAGES:
        raise VitrineError(
            f"no stage '{stage}' can be planned; use {' or '.join(STAGES)}.{nearest(stage, STAGES)}"
        )
    file = config or None
    from_file = dict(_flat(load_settings(AnyStage, file, [])))
    changes = [
        f"--{key}={_text(value)}"
        for key, value in _flat(given)
        if key not in from_file or from_file[key] != value
    ]
    return load_settings(STAGES[stage], file, changes)


def _flat(given: AnyStage) -> Iterator[tuple[str, Any]]:
    for entry in dataclasses.fields(given):
        yield from _leaves(entry.name, getattr(given, entry.name))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def known_settings() -> set[str]:
    """The top-level names of both stages' settings, all of which `AnyStage` has."""
    return {name for stage in STAGES.values() for name in typing.get_type_hints(stage)}
