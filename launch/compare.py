"""Many arms, several seeds, one verdict: which way of recommending is better here, and by how much.

Every arm is judged alike, by the same split and candidates, and, where settings are searched, after
the same number of trials. Arms of ours are fitted with the same steps and batch, baselines until
validation stops improving. Each arm of each seed is an artifact of its own, so that a comparison that
was stopped goes on, and one with another arm fits that arm alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.config import PositiveInt
from catalog.errors import Diverged, NotFinite, VitrineError, nearest
from finetune.config import ArmConfig, Fill, FinetuneConfig
from launch.pipeline import Stage, recommender_stage, say
from launch.search import SearchConfig, Searched, search_arms
from pretrain.config import EmbedConfig

SAME_FOR_EVERY_SEED = ("popularity", "item-knn")
"""Models that a seed changes nothing of."""
FILLS: dict[Fill, str] = {
    "mask": "masked in the fusion",
    "drop": "items without {} are in no training row",
    "zeros": "the tower says nothing of them",
    "mean": "the mean {} stands in",
    "neighbours": "the mean {} of items taken together with them",
    "multi-hop": "the same over several hops",
    "pagerank": "the same, weighed by personalised PageRank",
}


@dataclass(frozen=True)
class CompareConfig:
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all arms share: encoder, catalog, split, budget."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """The arms by name; empty: baselines, controls, each modality alone and every transfer mode."""
    include: str = ""
    """Names of the arms to run, with commas between; empty: all."""
    missing: str = ""
    """Percents, with commas between, such as 0,30,60,90: instead of those arms, what a shop does
    about so many items that lack a modality (`finetune.missing`)."""
    reference: str = ""
    """An arm that each of the others is compared with, beside the differences that are always told."""
    seeds: PositiveInt = 3
    """Trainings of each arm, with seeds one after the other."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Which settings each arm is given: the shared ones, or the best of as many trials for each."""


def default_arms(modalities: list[str]) -> dict[str, ArmConfig]:
    """Those that an encoder of these modalities allows; without an encoder, those that need none."""
    arms = {
        "popularity": ArmConfig(model="popularity", what="what most people took"),
        "item-knn": ArmConfig(model="item-knn", what="what others took who took the same"),
        "bpr-mf": ArmConfig(model="bpr-mf", what="a vector for each person and each item"),
        "id": ArmConfig(
            transfer="scratch",
            features="id",
            what="our reader of histories, a vector for each item",
        ),
    }
    if not modalities:
        return arms
    words = ArmConfig(features="content+id", words=True, what="the same, and one for each word")
    arms["vbpr"] = ArmConfig(model="vbpr", what="bpr-mf, and the pretrained item vectors")
    if len(modalities) > 1:
        for name in modalities:
            arms[f"{name} only"] = ArmConfig(only=name, what=f"lora, reading {name} alone")
    return arms | {
        "semantic-ids": ArmConfig(
            model="semantic-ids", what="items as codes of the pretrained vectors, told one by one"
        ),
        "shuffled": ArmConfig(features="shuffled", what="lora, reading other items' content"),
        "zero-shot": ArmConfig(transfer="zero-shot", what="as pretrained, nothing trained here"),
        "scratch": ArmConfig(transfer="scratch", what="the same model, not pretrained"),
        "frozen": ArmConfig(transfer="frozen", what="pretrained towers that stand still"),
        "lora": ArmConfig(transfer="lora", what="low-rank updates of the pretrained weights"),
        "full": ArmConfig(transfer="full", what="all pretrained weights trained on"),
        "lora+id": ArmConfig(features="content+id", what="lora, and a vector for each item"),
        **({"lora+id+words": words} if "text" in modalities else {}),
    }


def run_comparison(config: CompareConfig, output: Path, build_trainer: Any) -> Path:
    """Fits what is not fitted yet; writes `report.html`, `report.md`, `arms.parquet` and
    `targets.parquet` (each target's place under each arm and seed) into `output`.

    Returns the page's path.
    """
    arms = chosen_arms(config)
    config = _with_vectors(config, arms, output)
    failed: dict[str, str] = {}
    searched = search_arms(config.search, config.finetune, arms, output, build_trainer, failed)
    fitted = {name: arm for name, arm in arms.items() if name not in failed}
    stages = plan(config, fitted, output, build_trainer, searched)
    output.mkdir(parents=True, exist_ok=True)
    say(f"{len(arms)} arms, {len(stages)} trainings → {output}; Ctrl-C keeps those that are done")
    for number, (arm, seed, stage) in enumerate(stages, 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if stage.is_done():
            say(f"{place}: done earlier")
            continue
        say(place)
        try:
            stage.run()
        except (Diverged, NotFinite) as error:  # the others are compared all the same
            failed.setdefault(arm, f"seed {seed}: {error}")
            say(f"{place} failed: {error}")
    from launch.report.comparison import write_comparison

    folders: dict[str, list[Path]] = {name: [] for name in arms}
    for name, _, stage in stages:
        if name not in failed:
            folders[name].append(stage.folder)
    report, sentences = write_comparison(config, arms, folders, output, searched, failed)
    for sentence in sentences:
        say(sentence)
    return report


def _with_vectors(
    config: CompareConfig, arms: Mapping[str, ArmConfig], output: Path
) -> CompareConfig:
    """Reads all items once, where several trainings would each begin by it."""
    common = config.finetune
    if common.vectors or not common.encoder or not any(a.reads_all_content for a in arms.values()):
        return config
    from pretrain.embed import run_embedding

    asked, folder = EmbedConfig(common.encoder, common.catalog), output / "vectors"
    parents = {"encoder": Path(common.encoder)}
    stage = Stage(
        "vectors", folder, "vectors", asdict(asked), parents, lambda: run_embedding(asked, folder)
    )
    if not stage.is_done():
        say("reading every item once")
        stage.run()
    return replace(config, finetune=replace(common, vectors=str(folder)))


def chosen_arms(config: CompareConfig) -> dict[str, ArmConfig]:
    """The arms that were asked for; VitrineError where there are none, or not such."""
    if config.seeds < 1:
        raise VitrineError(f"seeds is {config.seeds}; give 1 or more")
    if config.missing:
        arms = missing_arms(_percents(config.missing), config.finetune.missing.modality)
    else:
        arms = config.arms or default_arms(_modalities(config.finetune.encoder))
    wanted = [name.strip() for name in config.include.split(",") if name.strip()] or list(arms)
    for name in wanted:
        if name not in arms:
            raise VitrineError(
                f"there is no arm {name!r} among those to compare.{nearest(name, arms)} "
                f"All of them: {', '.join(arms)}"
            )
    if config.reference and config.reference not in wanted:
        raise VitrineError(
            f"reference is {config.reference!r}, which is not among the arms compared: {', '.join(wanted)}"
        )
    return {name: arms[name] for name in wanted}


def missing_arms(percents: list[float], modality: str) -> dict[str, ArmConfig]:
    """Each way to do without, at each share that is missing, the towers standing still."""
    arms = {"whole": ArmConfig(transfer="frozen", what="as the catalog is")}
    for percent in percents:
        for fill, what in FILLS.items():
            arms[f"{fill} {percent:g}%"] = ArmConfig(
                transfer="frozen", missing=percent, fill=fill, what=what.format(modality)
            )
    return arms


def _percents(listed: str) -> list[float]:
    """Those above 0, where nothing is to be done about."""
    try:
        percents = [float(part) for part in listed.split(",")]
    except ValueError:
        percents = [-1.0]
    if not all(0 <= percent < 100 for percent in percents):
        raise VitrineError(
            f"missing is {listed!r}; give percents from 0 to below 100, with commas between: 0,30,60,90"
        )
    return [percent for percent in percents if percent]


def _modalities(encoder: str) -> list[str]:
    if not encoder:
        return []
    from catalog.artifacts import open_artifact

    shape = json.loads(
        (open_artifact(Path(encoder), kind="encoder").path / "config.json").read_text()
    )
    return [modality["name"] for modality in shape["modalities"]]


def plan(
    config: CompareConfig,
    arms: dict[str, ArmConfig],
    output: Path,
    build_trainer: Any,
    searched: Mapping[str, Searched] | None = None,
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


def without_seed_noise(arms: Mapping[str, ArmConfig]) -> set[str]:
    """Arms that come out the same with every seed: nothing of them is drawn, or nothing trained."""
    return {
        name
        for name, arm in arms.items()
        if arm.model in SAME_FOR_EVERY_SEED
        or (arm.model == "vitrine" and arm.transfer == "zero-shot" and not arm.missing)
    }


def questions(arms: dict[str, ArmConfig], reference: str = "") -> list[tuple[str, str, str]]:
    """(what is asked, arm, against): the differences that are tested, as far as the arms are there."""
    asked = [(f"pretraining ({name})", name, "scratch") for name in ("frozen", "lora", "full")]
    for name in ("scratch", "lora"):
        asked.append((f"knowing the person ({name})", name, "popularity"))
        asked.append((f"content instead of ids ({name})", name, "id"))
    asked += [
        ("the items' own content", "lora", "shuffled"),
        ("ids beside content", "lora+id", "lora"),
        ("content beside ids", "lora+id", "id"),
        ("words beside both", "lora+id+words", "lora+id"),
        ("content and words beside ids", "lora+id+words", "id"),
        ("semantic ids instead of dense vectors", "semantic-ids", "lora"),
        ("semantic ids instead of ids", "semantic-ids", "id"),
    ]
    for name, arm in arms.items():
        if arm.only:
            asked.append((f"what is known beside {arm.only}", "lora", name))
            asked.append((f"{arm.only} instead of ids", name, "id"))
    for name, arm in arms.items():
        if arm.missing and arm.fill != "mask":
            asked.append((f"a mask rather than {name}", f"mask {arm.missing:g}%", name))
        elif arm.missing:
            asked.append((f"{arm.missing:g} % missing", name, "whole"))
    asked += [(f"{name} rather than {reference}", name, reference) for name in arms if reference]
    found: dict[tuple[str, str], str] = {}
    for what, ours, other in asked:
        if ours in arms and other in arms and ours != other:
            found.setdefault((ours, other), what)
    return [(what, *pair) for pair, what in found.items()]
