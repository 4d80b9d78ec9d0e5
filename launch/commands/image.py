"""`vitrine train|generate|evaluate image`: the image generator."""

import json
from dataclasses import dataclass
from pathlib import Path

from generate.image.config import ImageBatchConfig, ImageConfig, ImageScoreConfig, SamplingConfig
from launch.commands.devices import ComputeOptions, TrainingOptions
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class TrainImageOptions(TrainingOptions):
    output: str = "runs/image"
    """Folder of the image generator."""


def train_image(options: TrainImageOptions, settings: ImageConfig) -> None:
    from generate.image.run import run_image_generator
    from launch.trainer import build_trainer

    settings = options.apply(settings)
    print_output_path(run_image_generator(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class EvaluateImageOptions(ComputeOptions):
    generator: str
    """Folder of an image-generator artifact."""
    output: str = "runs/image-scores"
    """Folder of the scores (scores.json) and the images side by side (contact-sheet.png)."""


def evaluate_image(options: EvaluateImageOptions, settings: ImageScoreConfig) -> None:
    from generate.image.report import SCORES_FILE, SHEET_FILE, describe_scores, run_image_scores

    output = run_image_scores(
        Path(options.generator), settings, Path(options.output), options.compute()
    )
    print(describe_scores(json.loads((output / SCORES_FILE).read_text())))
    print_output_path(output / SHEET_FILE)


@dataclass(frozen=True)
class GenerateImageOptions(ComputeOptions):
    generator: str
    """Folder of an image-generator artifact."""
    user: str | None = None
    """Id of the user to condition on; without it, generation is unconditional."""
    item: str | None = None
    """Id of the item."""
    output: str = "runs/image.png"
    """File of the image; with --all_users, folder of the images."""
    recommender: str = ""
    """A recommender extended (`vitrine extend`) from the one the generator was trained with."""
    all_users: bool = False
    """Batch generation for all users, into a folder; resumes, and shares the work under torchrun."""
    users: str = ""
    """With --all_users: a file of user ids, one on each line; empty: all users."""
    items: str = "top:3"
    """With --all_users: top:K, the K best items of each user, or item ids with commas between."""


def generate_image(options: GenerateImageOptions, settings: SamplingConfig) -> None:
    if options.all_users:
        from generate.image.batch_job import run_image_batch_job

        config = ImageBatchConfig(
            generator=options.generator,
            recommender=options.recommender,
            items=options.items,
            users=options.users,
            sampling=settings,
        )
        print_output_path(run_image_batch_job(config, Path(options.output), options.compute()))
        return
    from generate.image import sample_image

    sample_image(
        options.generator,
        user=options.user,
        item=options.item,
        config=settings,
        output=options.output,
        recommender=options.recommender,
        compute=options.compute(),
    )
    print_output_path(Path(options.output))
