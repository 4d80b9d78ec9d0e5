"""`vitrine finetune` and `vitrine extend`: a recommender for one domain, and for a newer catalog."""

import sys
from dataclasses import dataclass
from pathlib import Path

from finetune.config import ArmConfig, FinetuneConfig, Model
from launch.commands.devices import ComputeOptions, TrainingOptions
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class FinetuneOptions(TrainingOptions):
    output: str = "runs/recommender"
    """Folder of the recommender."""
    model: Model = "vitrine"
    """A recommender by dense embeddings (vitrine) or semantic ids, or a baseline."""


def finetune(options: FinetuneOptions, settings: FinetuneConfig) -> None:
    from launch.pipeline.stage import recommender_stage
    from launch.trainer import build_trainer

    settings = options.apply(settings)
    arm, folder = ArmConfig(model=options.model), Path(options.output)
    print_output_path(recommender_stage(options.model, arm, settings, folder, build_trainer).run())


@dataclass(frozen=True)
class ExtendOptions(ComputeOptions):
    recommender: str
    """Folder of a recommender artifact."""
    catalog: str = ""
    """Folder of the newer catalog; empty: the catalog it was trained on, as it is now."""
    encoder: str = ""
    """Folder of its encoder, if that was moved."""
    output: str = "runs/extended"
    """Folder of the recommender."""


def extend(options: ExtendOptions) -> None:
    from finetune.extension import extend as extend_recommender

    extended = extend_recommender(
        options.recommender,
        options.output,
        options.catalog,
        options.encoder or None,
        options.compute(),
    )
    line = (
        f"{extended.kept:,} items unchanged, {extended.added:,} added, {extended.removed:,} removed"
    )
    if extended.dropped:
        line += f"; {extended.dropped:,} interactions with removed items were dropped"
    print(line, file=sys.stderr)
    print_output_path(extended.path)
