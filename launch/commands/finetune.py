"""`vitrine finetune` and `vitrine extend`: a recommender for one domain, and for a newer catalog."""

import sys
from dataclasses import dataclass
from pathlib import Path

from finetune.config import ArmConfig, FinetuneConfig, Model
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class FinetuneOptions:
    output: str = "runs/recommender"
    """Folder of the recommender that is made."""
    model: Model = "vitrine"
    """A recommender of ours, by dense vectors (vitrine) or by semantic ids, or a baseline."""


def finetune(options: FinetuneOptions, settings: FinetuneConfig) -> None:
    from launch.pipeline.stage import recommender_stage
    from launch.trainer import build_trainer

    arm, folder = ArmConfig(model=options.model), Path(options.output)
    print_output_path(recommender_stage(options.model, arm, settings, folder, build_trainer).run())


@dataclass(frozen=True)
class ExtendOptions:
    recommender: str
    """Folder of a recommender artifact."""
    catalog: str = ""
    """Folder of the newer catalog; empty: the one it learned from, as it is now."""
    encoder: str = ""
    """Folder of its encoder, where that is no longer where it was."""
    output: str = "runs/extended"
    """Folder of the recommender that is made."""


def extend(options: ExtendOptions) -> None:
    from finetune.extension import extend as extend_recommender

    found = extend_recommender(
        options.recommender, options.output, options.catalog, options.encoder or None
    )
    told = f"{found.kept:,} items as they were, {found.added:,} added, {found.removed:,} removed"
    if found.dropped:
        told += f"; {found.dropped:,} interactions with items that are gone were left out"
    print(told, file=sys.stderr)
    print_output_path(found.path)
