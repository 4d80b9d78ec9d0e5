"""`vitrine train|generate|evaluate text`: the text generator."""

import json
from dataclasses import dataclass
from pathlib import Path

from generate.text.config import BulkConfig, ScoreConfig, TextConfig, WriteConfig
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class TrainTextOptions:
    output: str = "runs/text"
    """Folder of the text generator that is made."""


def train_text(options: TrainTextOptions, settings: TextConfig) -> None:
    from generate.text.run import run_text_generator
    from launch.trainer import build_trainer

    print_output_path(run_text_generator(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class EvaluateTextOptions:
    generator: str
    """Folder of a text-generator artifact."""
    output: str = "runs/text-scores"
    """Folder of the scores (scores.json) and the samples (samples.md)."""


def evaluate_text(options: EvaluateTextOptions, settings: ScoreConfig) -> None:
    from generate.text.report import describe_scores, run_text_scores

    output = run_text_scores(Path(options.generator), settings, Path(options.output))
    print(describe_scores(json.loads((output / "scores.json").read_text())))
    print_output_path(output / "samples.md")


@dataclass(frozen=True)
class GenerateTextOptions:
    generator: str
    """Folder of a text-generator artifact."""
    user: str | None = None
    """For whom, by id; nobody in particular without."""
    item: str | None = None
    """About what, by id."""
    task: str = "description"
    """What to write."""
    recommender: str = ""
    """One extended from the recommender it was trained with (`vitrine extend`), to know its items."""
    all_users: bool = False
    """For everybody, into a folder; goes on where it was, and shares the work under torchrun."""
    users: str = ""
    """With --all_users: only for those in this file, one id on each line."""
    items: str = "top:3"
    """With --all_users: each person's so many best items, or ids with commas between."""
    output: str = "runs/texts"
    """With --all_users: folder of the texts that are written."""


def generate_text(options: GenerateTextOptions, settings: WriteConfig) -> None:
    if options.all_users:
        from generate.text.bulk import write_for_all

        config = BulkConfig(
            generator=options.generator,
            recommender=options.recommender,
            task=options.task,
            items=options.items,
            users=options.users,
            write=settings,
        )
        print_output_path(write_for_all(config, Path(options.output)))
        return
    from generate.text import open_writer

    writer = open_writer(options.generator, recommender=options.recommender, engine=settings.engine)
    for piece in writer.stream(options.user, options.item, options.task, settings):
        print(piece, end="", flush=True)
    print()
