"""The whole way in one command: a list of stages, each skipped if its artifact already stands.

A stage is done when its folder holds an artifact made with the same settings from the same catalog
and parents; anything else (nothing there, a half-written folder, another setting) runs it again. Where
the folders lie and how a run goes (devices, logging) are no such settings. That is all the memory a
pipeline has, so it can be interrupted anywhere and loses at most the stage in progress.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.artifacts import open_artifact
from catalog.config import CatalogConfig, PositiveInt, Seed, SplitConfig
from catalog.errors import VitrineError
from catalog.progress import duration
from catalog.staging import replace_file
from finetune.config import ArmConfig, FinetuneConfig
from generate.config import ShowcaseConfig
from generate.image.config import ImageConfig
from generate.text.config import TextConfig
from pretrain.config import PretrainConfig


@dataclass(frozen=True)
class WorldConfig:
    seed: Seed = 0
    """The demo world is a function of it."""
    num_items: PositiveInt = 2000
    """Items in each of the two domains."""
    num_people: PositiveInt = 3000
    """People, who shop in both."""


@dataclass(frozen=True)
class PipelineConfig:
    title: str = "Vitrine"
    """Heading of the report."""
    lead: str = ""
    """Two or three sentences on what this run does, for the report."""
    world: WorldConfig | None = None
    """Build the demo world under OUTPUT/world first; catalog paths may begin with {output}."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all arms share."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """The recommenders to compare, by name."""
    headline: str = "lora"
    """The arm that words and pictures are made from."""
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    showcase: ShowcaseConfig = field(default_factory=ShowcaseConfig)
    expected_seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took on two cores, by stage; says at the start what to expect."""


@dataclass
class Stage:
    """One step of the way: what it is called, what it would make, and how."""

    name: str
    folder: Path
    kind: str
    config: dict[str, Any]
    parents: dict[str, Path]
    run: Callable[[], Any]
    done: Callable[[], bool] | None = None
    """For a stage that leaves no artifact and knows itself whether it is done."""

    def is_done(self) -> bool:
        if self.done is not None:
            return self.done()
        if not (self.folder / "manifest.json").exists():
            return False
        from catalog.catalog import load_catalog
        from pretrain.work import learned_request

        try:
            artifact = open_artifact(self.folder, kind=self.kind)
            for path in self.parents.values():
                open_artifact(path)
            catalog = load_catalog(CatalogConfig(**self.config["catalog"])).fingerprint
            wanted = learned_request(self.kind, self.config, self.parents, catalog)
        except VitrineError:
            return False
        return artifact.manifest["request_hash"] == wanted


def run_pipeline(config: PipelineConfig, output: Path, build_trainer: Any) -> Path:
    """Runs what is not done yet and writes `report.html`; returns its path."""
    seconds = run_stages(config, output, build_trainer)
    from launch.report.gather import write_report

    report = write_report(config, output, seconds)
    say(f"Report: {report}")
    return report


def run_stages(
    config: PipelineConfig,
    output: Path,
    build_trainer: Any,
    only: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """Runs the stages that are not done; `only` names those wanted by the first word of their name.

    Returns the seconds each took, when it ran.
    """
    if config.headline not in config.arms:
        raise VitrineError(
            f"headline '{config.headline}' is not one of the arms ({', '.join(config.arms)})"
        )
    if config.arms[config.headline].kind != "recommender":
        raise VitrineError(
            f"headline '{config.headline}' is a {config.arms[config.headline].kind} arm "
            f"(model {config.arms[config.headline].model}), from which neither words nor pictures are "
            "made; name an arm whose model is vitrine"
        )
    say(f"{config.title} → {output}")
    output.mkdir(parents=True, exist_ok=True)
    log = StageLog(output / "stages.json")
    stages = plan_stages(config, output, build_trainer)
    if only is not None:
        stages = [stage for stage in stages if stage.name.split()[0] in only]
    left = sum(config.expected_seconds.get(s.name, 0) for s in stages if not s.is_done())
    say(f"{len(stages)} stages, about {duration(left)} on two cores; Ctrl-C keeps finished stages")
    for number, stage in enumerate(stages, 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if stage.is_done():
            say(f"{place}: done earlier")
            continue
        wait = config.expected_seconds.get(stage.name)
        say(f"{place}: about {duration(wait)}" if wait else place)
        started = time.perf_counter()
        stage.run()
        log.record(stage.name, time.perf_counter() - started)
    return log.seconds


def plan_stages(config: PipelineConfig, output: Path, build_trainer: Any) -> list[Stage]:
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
            "words",
            output / "text",
            "text-generator",
            asdict(text),
            base,
            lambda: run_text_generator(text, output / "text", build_trainer),
        ),
        Stage(
            "pictures",
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


def recommender_stage(
    name: str, arm: ArmConfig, settings: FinetuneConfig, folder: Path, build_trainer: Any
) -> Stage:
    """Fits one arm and ranks its test targets."""
    from finetune.baselines.run import run_baseline
    from finetune.run import run_finetuning
    from finetune.semantic.run import run_semantic_ids

    def run() -> Path:
        if arm.model == "vitrine":
            return run_finetuning(settings, folder, build_trainer)
        if arm.model == "semantic-ids":
            return run_semantic_ids(settings, folder, build_trainer)
        return run_baseline(arm.model, settings, folder, build_trainer)

    is_baseline = arm.kind == "baseline"
    reads_encoder = settings.encoder and (not is_baseline or arm.model == "vbpr")
    return Stage(
        f"finetune {name}",
        folder,
        arm.kind,
        {"model": arm.model, **asdict(settings)} if is_baseline else asdict(settings),
        {"encoder": Path(settings.encoder)} if reads_encoder else {},
        run,
    )


class StageLog:
    """Seconds each stage took, kept over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def record(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 1)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.seconds, indent=1))
        replace_file(partial, self.path)


def say(line: str) -> None:
    """Tells how far a command is, beside what it prints."""
    print(line, file=sys.stderr, flush=True)
