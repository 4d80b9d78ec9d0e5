"""Runs a comparison: many arms, several seeds, and which way of recommending is better by how much.

Every arm is evaluated alike, by the same split and candidates, and, where settings are searched, after
the same number of trials. Our arms are trained with the same steps and batch, baselines until
validation stops improving. Each arm of each seed is an artifact of its own, so that a stopped
comparison resumes, and one with another arm trains that arm alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from catalog.errors import DivergenceError, NonFiniteError
from finetune.config import ArmConfig
from launch.compare.arms import chosen_arms
from launch.compare.config import CompareConfig
from launch.compare.contrasts import SAME_FOR_EVERY_SEED
from launch.compare.report import write_comparison
from launch.console import print_status
from launch.pipeline.stage import Stage, recommender_stage
from launch.search.result import SearchResult
from launch.search.study import search_arms
from pretrain.config import EmbedConfig


def run_comparison(config: CompareConfig, output: Path, build_trainer: Any) -> Path:
    """Trains the arms that are not trained yet; writes `report.html`, `report.md`, `arms.parquet` and
    `targets.parquet` (each target's rank under each arm and seed) into `output`.

    Returns the page's path.
    """
    arms = chosen_arms(config)
    config = _with_vectors(config, arms, output)
    failed: dict[str, str] = {}
    searched = search_arms(config.search, config.finetune, arms, output, build_trainer, failed)
    fitted = {name: arm for name, arm in arms.items() if name not in failed}
    stages = training_stages(config, fitted, output, build_trainer, searched)
    output.mkdir(parents=True, exist_ok=True)
    print_status(
        f"{len(arms)} arms, {len(stages)} trainings → {output}; Ctrl-C keeps those that are done"
    )
    for number, (arm, seed, stage) in enumerate(stages, 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if stage.is_done():
            print_status(f"{place}: done earlier")
            continue
        print_status(place)
        try:
            stage.run()
        except (DivergenceError, NonFiniteError) as error:  # the others are compared all the same
            failed.setdefault(arm, f"seed {seed}: {error}")
            print_status(f"{place} failed: {error}")
    folders: dict[str, list[Path]] = {name: [] for name in arms}
    for name, _, stage in stages:
        if name not in failed:
            folders[name].append(stage.folder)
    report, sentences = write_comparison(config, arms, folders, output, searched, failed)
    for sentence in sentences:
        print_status(sentence)
    return report


def _with_vectors(
    config: CompareConfig, arms: Mapping[str, ArmConfig], output: Path
) -> CompareConfig:
    """Embeds all items once and shares the embeddings, where several trainings would each do so."""
    common = config.finetune
    if common.vectors or not common.encoder or not any(a.reads_all_content for a in arms.values()):
        return config
    from pretrain.devices import training_compute
    from pretrain.embed import run_embedding

    settings, folder = EmbedConfig(common.encoder, common.catalog), output / "vectors"
    parents = {"encoder": Path(common.encoder)}
    stage = Stage(
        "vectors",
        folder,
        "vectors",
        asdict(settings),
        parents,
        lambda: run_embedding(settings, folder, training_compute(common.trainer)),
    )
    if not stage.is_done():
        print_status("computing the embedding of every item")
        stage.run()
    return replace(config, finetune=replace(common, vectors=str(folder)))


def training_stages(
    config: CompareConfig,
    arms: dict[str, ArmConfig],
    output: Path,
    build_trainer: Any,
    searched: Mapping[str, SearchResult] | None = None,
) -> list[tuple[str, int, Stage]]:
    """(arm, seed, stage), seed by seed, so that an early look has all arms."""
    stages = []
    first = config.finetune.trainer.seed
    for seed in range(first, first + config.seeds):
        for name, arm in arms.items():
            if arm.model in SAME_FOR_EVERY_SEED and seed != first:
                continue
            settings = arm.settings(config.finetune)
            if searched and name in searched:
                settings = searched[name].settings(settings)
            settings = replace(settings, trainer=replace(settings.trainer, seed=seed))
            folder = output / "arms" / name.replace("/", "-") / f"seed-{seed}"
            stage = recommender_stage(f"{name}, seed {seed}", arm, settings, folder, build_trainer)
            stages.append((name, seed, stage))
    return stages
