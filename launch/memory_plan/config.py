"""Options of `vitrine launch plan` and `simulate`, and settings of whichever stage is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.config import NonNegativeInt, PositiveInt
from catalog.errors import VitrineError, did_you_mean
from finetune.config import FinetuneConfig
from generate.image.config import ImageConfig
from launch.settings import load_settings
from pretrain.config import PretrainConfig

SIMULATED: dict[str, type] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
STAGES: dict[str, type] = {**SIMULATED, "train-image": ImageConfig}


@dataclass(frozen=True)
class PlanOptions:
    stage: str
    """pretrain, finetune or train-image; its own settings follow, as without `launch`."""
    config: str | None = None
    """The stage's settings, as for the stage itself."""
    device: str = "here"
    """a100-40, a100-80, h100, h200, or what this machine has (here)."""
    output: str = "runs/plan"
    """Output folder of the stage; free space on its disk is checked."""
    probe: bool = False
    """Take two real steps here, and compare their memory with the prediction."""
    json: bool = False
    """For machines."""


@dataclass(frozen=True)
class SimulateOptions:
    stage: str
    """pretrain or finetune; its own settings follow, as without `launch`."""
    config: str | None = None
    """The stage's settings, as for the stage itself."""
    nodes: NonNegativeInt = 0
    """Machines; 0: as trainer.nodes says."""
    devices: NonNegativeInt = 0
    """Devices on each; 0: as trainer.devices says."""
    rank: NonNegativeInt = 0
    """The rank to simulate."""
    steps: PositiveInt = 2
    """Steps to take."""
    json: bool = False
    """For machines."""


def stage_settings(
    stage: str, config: str | None, arguments: list[str], stages: Mapping[str, type] = STAGES
) -> Any:
    """The stage's settings from its file and what the command line says; VitrineError as there."""
    if stage not in stages:
        how = "planned" if stages is STAGES else "simulated"
        raise VitrineError(
            f"no stage '{stage}' can be {how}; use {' or '.join(stages)}.{did_you_mean(stage, stages)}"
        )
    return load_settings(stages[stage], config or None, arguments)
