"""Resumes an image generator that was killed on two ranks; images equal those of an uninterrupted one.

python -m benchmarks.image_resume    # about three minutes on two cores
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import write_record
from benchmarks.sources import CHECKPOINTS, IMAGES
from catalog.demo import build_demo_world
from generate.image import load_image_sampler
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig, SamplingConfig
from pretrain.config import TrainerConfig
from tests.pretrain.runs import differing_bytes, largest_difference
from tests.stages import small_recommender, train, write_settings

STEPS, EVERY, KILL_AT = 60, 20, 47
REQUESTS = 64
SEED = 0
DRAW = SamplingConfig(steps=4, reject_near_copies=False)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        world = build_demo_world(Path(folder) / "world", num_items=200, num_users=150)
        figures = train_killed_and_uninterrupted(world, Path(folder))
    write_record(
        "image-resume",
        claim="A picture generator whose training under ZeRO-2 on two ranks is killed and started again "
        "has the loss curve and draws the pictures of one that was never disturbed, and the loss curve "
        "of one process.",
        command="python -m benchmarks.image_resume",
        seeds=[SEED],
        figures=figures,
        sources=[*IMAGES, *CHECKPOINTS],
        goal=[
            "largest_loss_difference <= 1e-6",
            "largest_loss_difference_to_one_process <= 1e-6",
            f"same_pictures == {REQUESTS}",
            f"first_step_after_the_kill == {KILL_AT // EVERY * EVERY}",
            "differing_weight_bytes == 0",
            "distinct_pictures > 32",
        ],
        note=f"{STEPS} steps on CPU with gloo, a checkpoint every {EVERY}; SIGKILL to the first rank in "
        f"step {KILL_AT}. World size, engine and stage are asserted. Losses relative, of every step. "
        f"{REQUESTS} requests: users and items in turn, each with its own seed. one process: the same "
        "training, whose sums are rounded in another order; largest_pixel_difference_to_one_process is "
        "in levels of 255.",
    )


def train_killed_and_uninterrupted(world: Path, folder: Path) -> dict[str, float]:
    settings = image_settings(world, folder)
    whole, broken, one = (folder / name for name in ("whole", "broken", "one"))
    train(settings, whole, "zero2", 2, stage="image")
    train(settings, broken, "zero2", 2, kill_at=KILL_AT, stage="image")
    ran = train(settings, broken, "zero2", 2, stage="image")
    train(settings, one, stage="image")
    drawn = {output: pictures_of(output, REQUESTS) for output in (whole, broken, one)}
    same = (drawn[whole] == drawn[broken]).all((1, 2, 3))
    apart = np.abs(drawn[whole].astype(int) - drawn[one])
    return {
        "same_pictures": int(same.sum()),
        "distinct_pictures": len({picture.tobytes() for picture in drawn[whole]}),
        "first_step_after_the_kill": ran["first_step"],
        "differing_weight_bytes": differing_bytes(whole, broken),
        "largest_loss_difference": largest_difference(whole, broken),
        "largest_loss_difference_to_one_process": largest_difference(whole, one),
        "largest_pixel_difference_to_one_process": int(apart.max()),
    }


def image_settings(world: Path, folder: Path, steps: int = STEPS, every: int = EVERY) -> Path:
    """Writes the settings (YAML) of a small image generator for the demo's second shop; returns the path."""
    finetuning = small_recommender(world, folder)
    config = ImageConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=24),
        denoiser=DenoiserConfig(width=32, layers=2, heads=2, user_tokens=2, item_tokens=2),
        sampling=DRAW,
        trainer=TrainerConfig(
            max_steps=steps,
            log_every=1,
            checkpoint_every=every,
            accelerator="cpu",
            progress=False,
            seed=SEED,
        ),
    )
    return write_settings(config, folder / "image.yaml")


def pictures_of(generator: Path, requests: int = 8) -> NDArray[np.uint8]:
    """Samples images of a generator: (requests, height, width, 3)."""
    sampler = load_image_sampler(generator)
    users, items = sampler.catalog.user_ids, sampler.catalog.items["item_id"]
    pairs = [(str(users[n % len(users)]), items[7 * n % len(items)]) for n in range(requests)]
    return np.stack([np.asarray(picture) for picture in sampler.sample(pairs)])


if __name__ == "__main__":
    main()
