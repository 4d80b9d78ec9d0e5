"""The stages of a pipeline in order, each with its settings, parents and output folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from catalog.config import CatalogConfig, SplitConfig
from finetune.config import ArmConfig
from launch.pipeline.config import PipelineConfig, WorldConfig
from launch.pipeline.stage import Stage, recommender_stage


def pipeline_stages(config: PipelineConfig, output: Path, build_trainer: Any) -> list[Stage]:
    """All stages in order, with every path filled in."""
    from generate.image.run import run_image_generator
    from generate.showcase import run_showcase
    from generate.text.run import run_text_generator
    from pretrain.run import run_pretraining

    def placed(catalog: CatalogConfig) -> CatalogConfig:
        return replace(catalog, path=catalog.path.replace("{output}", str(output)))

    encoder = output / "encoder"
    pretrain = replace(config.pretrain, catalog=placed(config.pretrain.catalog))
    stages = [] if config.world is None else [_world_stage(config.world, output / "world")]
    stages += [
        Stage(
            "pretrain",
            encoder,
            "encoder",
            asdict(pretrain),
            {},
            lambda: run_pretraining(pretrain, encoder, build_trainer),
        )
    ]
    domain = placed(config.finetune.catalog)
    for name, arm in config.arms.items():
        stages.append(_arm_stage(config, name, arm, domain, encoder, output, build_trainer))
    recommender = output / "recommenders" / config.headline
    made: dict[str, SplitConfig | CatalogConfig] = {
        "catalog": domain,
        "split": config.finetune.split,
    }
    text = replace(config.text, recommender=str(recommender), **made)
    image = replace(config.image, recommender=str(recommender), **made)
    showcase = replace(
        config.showcase,
        recommender=str(recommender),
        text=str(output / "text"),
        image=str(output / "image"),
        truth=config.showcase.truth.replace("{output}", str(output.resolve())),
        **made,
    )
    base = {"recommender": recommender}
    stages += [
        Stage(
            "text",
            output / "text",
            "text-generator",
            asdict(text),
            base,
            lambda: run_text_generator(text, output / "text", build_trainer),
        ),
        Stage(
            "image",
            output / "image",
            "image-generator",
            asdict(image),
            base,
            lambda: run_image_generator(image, output / "image", build_trainer),
        ),
        Stage(
            "showcase",
            output / "showcase",
            "showcase",
            asdict(showcase),
            {**base, "text": output / "text", "image": output / "image"},
            lambda: run_showcase(showcase, output / "showcase"),
        ),
    ]
    return stages


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
    )


def _arm_stage(
    config: PipelineConfig,
    name: str,
    arm: ArmConfig,
    domain: CatalogConfig,
    encoder: Path,
    output: Path,
    build_trainer: Any,
) -> Stage:
    settings = arm.settings(replace(config.finetune, encoder=str(encoder), catalog=domain))
    return recommender_stage(name, arm, settings, output / "recommenders" / name, build_trainer)
