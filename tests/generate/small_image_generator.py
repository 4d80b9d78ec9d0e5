"""A small image generator of the demo world, and fast sampling settings, for tests."""

from pathlib import Path

from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.run import run_image_generator
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.stages import small_recommender

FEW = SamplingConfig(steps=2, reject_near_copies=False)


def small_image_generator(demo_world: Path, folder: Path) -> Path:
    finetuning = small_recommender(demo_world, folder)
    config = ImageConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, progress=False),
    )
    return run_image_generator(config, folder / "image", build_trainer)
