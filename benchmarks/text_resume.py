"""Resumes a text generator that was killed on two ranks; texts equal those of an uninterrupted one.

python -m benchmarks.text_resume    # about three minutes on two cores
"""

import os
import tempfile
from pathlib import Path

from benchmarks.record import write_record
from benchmarks.sources import CHECKPOINTS, TEXTS
from catalog.demo import build_demo_world
from generate.text import load_writer
from generate.text.config import TextConfig, WriteConfig
from pretrain.config import TrainerConfig
from tests.pretrain.runs import differing_bytes, largest_difference
from tests.stages import small_recommender, train, write_settings

STEPS, EVERY, KILL_AT = 60, 20, 47
REQUESTS = 64
SEED = 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        world = build_demo_world(Path(folder) / "world", num_items=200, num_users=150)
        figures = train_killed_and_uninterrupted(world, Path(folder))
    write_record(
        "text-resume",
        claim="A text generator whose training under ZeRO-2 on two ranks is killed and started again "
        "writes, from the same seeds, the words of one that was never disturbed.",
        command="python -m benchmarks.text_resume",
        seeds=[SEED],
        figures=figures,
        sources=[*TEXTS, *CHECKPOINTS],
        goal=[
            f"same_words == {REQUESTS}",
            f"first_step_after_the_kill == {KILL_AT // EVERY * EVERY}",
            "differing_weight_bytes == 0",
            "distinct_words > 32",
        ],
        note=f"{STEPS} steps on CPU with gloo, a checkpoint every {EVERY}; SIGKILL to the first rank in "
        f"step {KILL_AT}. World size, engine and stage are asserted. {REQUESTS} requests: users, items "
        "and tasks in turn, temperature 1, each with its own seed. one: the same training in one "
        "process, whose sums are rounded in another order; its words may differ.",
    )


def train_killed_and_uninterrupted(world: Path, folder: Path) -> dict[str, float]:
    settings = text_settings(world, folder)
    whole, broken, one = (folder / name for name in ("whole", "broken", "one"))
    train(settings, whole, "zero2", 2, stage="text")
    train(settings, broken, "zero2", 2, kill_at=KILL_AT, stage="text")
    ran = train(settings, broken, "zero2", 2, stage="text")
    train(settings, one, stage="text")
    words = {output: texts_of(output) for output in (whole, broken, one)}
    return {
        "same_words": same(words[whole], words[broken]),
        "distinct_words": len(set(words[whole])),
        "first_step_after_the_kill": ran["first_step"],
        "differing_weight_bytes": differing_bytes(whole, broken),
        "largest_loss_difference": largest_difference(whole, broken),
        "same_words_as_one_process": same(words[whole], words[one]),
        "largest_loss_difference_to_one_process": largest_difference(whole, one),
    }


def text_settings(world: Path, folder: Path, steps: int = STEPS, every: int = EVERY) -> Path:
    """Writes the settings (YAML) of a small text generator for the demo's second shop; returns the path."""
    finetuning = small_recommender(world, folder)
    config = TextConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        tasks=("title", "review"),
        vocab_size=400,
        max_tokens=24,
        trainer=TrainerConfig(
            max_steps=steps,
            log_every=1,
            checkpoint_every=every,
            accelerator="cpu",
            progress=False,
            seed=SEED,
        ),
    )
    return write_settings(config, folder / "text.yaml")


def texts_of(generator: Path, requests: int = REQUESTS) -> list[str]:
    writer = load_writer(generator)
    catalog = writer.catalog
    return [
        writer.write(
            str(catalog.user_ids[number % catalog.num_users]),
            str(catalog.items[7 * number % catalog.num_items]["item_id"]),
            writer.generator.tasks[number % 2],
            WriteConfig(temperature=1.0, seed=number),
        )[0].text
        for number in range(requests)
    ]


def same(ours: list[str], theirs: list[str]) -> int:
    return sum(one == other for one, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
