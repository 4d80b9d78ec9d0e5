"""`vitrine demo` and `vitrine run`: every stage of a pipeline, from a catalog to the report."""

from dataclasses import dataclass, replace
from pathlib import Path

from catalog.config import Seed
from launch.commands.devices import TrainingOptions
from launch.commands.output import print_output_path
from launch.pipeline.config import PipelineConfig, WorldConfig


@dataclass(frozen=True)
class DemoOptions(TrainingOptions):
    fast: bool = False
    """A smaller shop and shorter training: a minute or two."""
    output: str = ""
    """Folder of all outputs; runs/demo, or runs/demo-fast with --fast."""
    seed: Seed = 0
    """Seed of the demo world."""
    open: bool = False
    """Open the page in a browser at the end."""

    @property
    def config(self) -> str:
        return "pipeline/demo-fast" if self.fast else "pipeline/demo"

    @property
    def folder(self) -> Path:
        return Path(self.output or ("runs/demo-fast" if self.fast else "runs/demo"))


def demo(options: DemoOptions, settings: PipelineConfig) -> None:
    from launch.pipeline.run import run_pipeline
    from launch.trainer import build_trainer

    world = replace(settings.world or WorldConfig(), seed=options.seed)
    report = run_pipeline(
        options.apply(replace(settings, world=world)), options.folder, build_trainer
    )
    print_output_path(report)
    if options.open:
        import webbrowser

        webbrowser.open(report.resolve().as_uri())


@dataclass(frozen=True)
class RunOptions(TrainingOptions):
    config: str
    """A YAML file, or one that comes with Vitrine, by its name."""
    output: str = "runs/pipeline"
    """Folder of all outputs."""


def run(options: RunOptions, settings: PipelineConfig) -> None:
    from launch.pipeline.run import run_pipeline
    from launch.trainer import build_trainer

    settings = options.apply(settings)
    print_output_path(run_pipeline(settings, Path(options.output), build_trainer))
