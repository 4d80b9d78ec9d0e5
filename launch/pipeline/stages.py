"""The stages of a pipeline in order, each with its settings, parents and output folder.

Listing them imports no torch: a stage does, when it runs.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from catalog.config import CatalogConfig, SplitConfig
from launch.pipeline.config import PipelineConfig, WorldConfig
from launch.pipeline.stage import Stage, recommender_stage


def pipeline_stages(config: PipelineConfig, output: Path, build_trainer: Any) -> list[Stage]:
    """All stages in order, with every path filled in."""
    stages = [] if config.world is None else [_world_stage(config.world, output / "world")]
    stages.append(_pretraining_stage(config, output, build_trainer))
    for name, arm in config.arms.items():
        shared = replace(
            config.finetune,
            encoder=str(output / "encoder"),
            catalog=_placed(config.finetune.catalog, output),
        )
        folder = output / "recommenders" / name
        stages.append(recommender_stage(name, arm, arm.settings(shared), folder, build_trainer))
    return stages + _generation_stages(config, output, build_trainer)


def _placed(catalog: CatalogConfig, output: Path) -> CatalogConfig:
    return replace(catalog, path=catalog.path.replace("{output}", str(output)))


def _pretraining_stage(config: PipelineConfig, output: Path, build_trainer: Any) -> Stage:
    encoder = output / "encoder"
    settings = replace(config.pretrain, catalog=_placed(config.pretrain.catalog, output))

    def run() -> Path:
        from pretrain.run import run_pretraining

        return run_pretraining(settings, encoder, build_trainer)

    return Stage(
        "pretrain",
        encoder,
        "encoder",
        asdict(settings),
        {},
        run,
        alone=True,
    )


def _generation_stages(config: PipelineConfig, output: Path, build_trainer: Any) -> list[Stage]:
    """The text generator, the image generator and the showcase, for the headline arm."""
    recommender = output / "recommenders" / config.headline
    data: dict[str, SplitConfig | CatalogConfig] = {
        "catalog": _placed(config.finetune.catalog, output),
        "split": config.finetune.split,
    }
    text = replace(config.text, recommender=str(recommender), **data)
    image = replace(config.image, recommender=str(recommender), **data)
    parents = {"recommender": recommender}
    showcase = replace(
        config.showcase,
        recommender=str(recommender),
        text=str(output / "text"),
        image=str(output / "image"),
        ground_truth=config.showcase.ground_truth.replace("{output}", str(output.resolve())),
        **data,
    )

    def run_text() -> Path:
        from generate.text.run import run_text_generator

        return run_text_generator(text, output / "text", build_trainer)

    def run_image() -> Path:
        from generate.image.run import run_image_generator

        return run_image_generator(image, output / "image", build_trainer)

    def run_users() -> Path:
        from generate.showcase import run_showcase
        from pretrain.devices import training_compute

        return run_showcase(showcase, output / "showcase", training_compute(text.trainer))

    folders = {name: output / name for name in ("text", "image")}
    place = output / "showcase"
    return [
        Stage("text", folders["text"], "text-generator", asdict(text), parents, run_text),
        Stage("image", folders["image"], "image-generator", asdict(image), parents, run_image),
        Stage("showcase", place, "showcase", asdict(showcase), {**parents, **folders}, run_users),
    ]


def _world_stage(world: WorldConfig, folder: Path) -> Stage:
    from catalog.demo import build_demo_world, is_built

    settings = asdict(world)
    return Stage(
        "world",
        folder,
        "world",
        settings,
        {},
        lambda: build_demo_world(folder, **settings),
        lambda: is_built(folder, **settings),
        alone=True,
    )
