"""`vitrine train|generate|evaluate text`: the text generator."""

import json
from dataclasses import dataclass
from pathlib import Path

from generate.text.config import TextBatchConfig, TextConfig, TextScoreConfig, WriteConfig
from launch.commands.devices import ComputeOptions, TrainingOptions
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class TrainTextOptions(TrainingOptions):
    output: str = "runs/text"
    """Output folder of the text generator."""


def train_text(options: TrainTextOptions, settings: TextConfig) -> None:
    from generate.text.run import run_text_generator
    from launch.trainer import build_trainer

    settings = options.apply(settings)
    print_output_path(run_text_generator(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class EvaluateTextOptions(ComputeOptions):
    generator: str
    """Folder of a text-generator artifact."""
    output: str = "runs/text-scores"
    """Folder of the scores (scores.json) and the samples (samples.md)."""


def evaluate_text(options: EvaluateTextOptions, settings: TextScoreConfig) -> None:
    from generate.text.report import describe_scores, run_text_scores

    output = run_text_scores(
        Path(options.generator), settings, Path(options.output), options.compute()
    )
    print(describe_scores(json.loads((output / "scores.json").read_text())))
    print_output_path(output / "samples.md")


@dataclass(frozen=True)
class GenerateTextOptions(ComputeOptions):
    generator: str
    """Folder of a text-generator artifact."""
    user: str | None = None
    """Id of the user the text is for; without it, the text is unconditional."""
    item: str | None = None
    """Id of the item the text is about."""
    task: str = "description"
    """The writing task, such as description or review."""
    recommender: str = ""
    """A recommender extended from the one it was trained with (`vitrine extend`), to know its items."""
    all_users: bool = False
    """Batch generation for all users, into a folder; resumes where it stopped, shares work under torchrun."""
    users: str = ""
    """With --all_users: only the users in this file, one id on each line."""
    items: str = "top:3"
    """With --all_users: items for each user, `top:K` for their best K, or ids separated by commas."""
    output: str = "runs/texts"
    """With --all_users: output folder of the texts."""


def generate_text(options: GenerateTextOptions, settings: WriteConfig) -> None:
    if options.all_users:
        from generate.text.batch_job import write_texts

        config = TextBatchConfig(
            generator=options.generator,
            recommender=options.recommender,
            task=options.task,
            items=options.items,
            users=options.users,
            write=settings,
        )
        print_output_path(write_texts(config, Path(options.output), options.compute()))
        return
    from generate.text import load_writer

    writer = load_writer(
        options.generator,
        recommender=options.recommender,
        config=settings,
        compute=options.compute(),
    )
    for piece in writer.stream(options.user, options.item, options.task, settings):
        print(piece, end="", flush=True)
    print()
