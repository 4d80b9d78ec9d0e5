"""`vitrine compare`: many recommenders under one protocol, and which differences are significant."""

from dataclasses import dataclass
from pathlib import Path

from launch.commands.devices import TrainingOptions
from launch.commands.output import print_output_path
from launch.compare.config import CompareConfig


@dataclass(frozen=True)
class CompareOptions(TrainingOptions):
    output: str = "runs/compare"
    """Folder of the arms and of the report."""


def compare(options: CompareOptions, settings: CompareConfig) -> None:
    from launch.compare.run import run_comparison
    from launch.trainer import build_trainer

    settings = options.apply(settings)
    print_output_path(run_comparison(settings, Path(options.output), build_trainer))
