"""Reads a finished run's artifacts and says what its page shows; makes nothing itself."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.images import read_image, read_image_shape
from catalog.splits import Split, load_split, target_rows
from finetune.baselines.popularity import rank_by_popularity
from finetune.config import ArmConfig
from finetune.evaluate import ndcg_interval
from finetune.metrics import metric_values, summarize, target_slices
from finetune.statistics import Interval, ratio_interval
from launch.report.contents import (
    ArmRow,
    Claim,
    ControlRow,
    Creation,
    Curve,
    ItemCard,
    Made,
    PersonStory,
    Report,
    RetrievalRow,
)
from launch.report.gallery import SHOWN_PIXELS, kind_of_picture
from launch.report.page import render_page

if TYPE_CHECKING:
    from launch.pipeline.config import PipelineConfig

FEW_COLD = 20
"""With fewer targets never bought in training, what is said of them is chance."""
REPEAT_COLUMNS = ("new/recall@10", "repeated/recall@10")
COLUMNS = ("recall@10", "mrr", "coverage@10", "cold/recall@10", *REPEAT_COLUMNS)
PROTOCOL = {
    "global-time": (
        "One moment divides past from future for everybody; what a person bought first after it is "
        "the target"
    ),
    "leave-one-out": "Each person's last item is the target",
    "random": (
        "Each person's interactions are dealt to training, validation and test at random; one of the "
        "test part is the target, the training part the history"
    ),
    "given": (
        "The table itself says what is held out; what a person took first of its test part is the "
        "target, the training part the history"
    ),
}


CONTENT_READ = {
    "catalog": (
        "Whitening, vocabulary and semantic ids are computed from the content of all items of the "
        "catalog, also of those that nobody took before the test period; no interaction of that "
        "period is read."
    ),
    "trained": (
        "Whitening, vocabulary and semantic ids are computed from the content of items that were taken "
        "in training."
    ),
}
"""By `finetune.content_statistics`."""


def write_report(config: "PipelineConfig", output: Path, seconds: dict[str, float]) -> Path:
    """Writes OUTPUT/report.html from the run's artifacts; returns its path."""
    path = output / "report.html"
    path.write_text(render_page(gather_report(config, output, seconds)), encoding="utf8")
    return path


def gather_report(config: "PipelineConfig", output: Path, seconds: dict[str, float]) -> Report:
    settings = config.finetune.catalog
    placed = replace(settings, path=settings.path.replace("{output}", str(output)))
    catalog, split = load_split(placed, config.finetune.split)
    arms, ranks = gather_arms(config, output, catalog, split)
    showcase = open_artifact(output / "showcase", kind="showcase")
    content = json.loads((showcase.path / "showcase.json").read_text())
    controls = gather_controls(content["scores"])
    return Report(
        title=config.title,
        lead=config.lead,
        facts=_facts(config, output, catalog, split),
        window=[card(catalog, item) for item in _window(catalog)],
        claims=ranking_claims(config, arms, ranks, catalog, split) + content_claims(controls),
        curves=_curves(config, output),
        protocol=(
            f"{PROTOCOL[config.finetune.split.kind]}. {candidates_told(catalog, split)} "
            f"{len(split.test):,} targets; "
            f"{split.cold_fractions['test']:.0%} of them were never bought in training (cold). "
            f"{CONTENT_READ[config.finetune.content_statistics]} "
            "Bars are 95 % bootstrap intervals over people, one training run each; training noise is "
            "not measured."
        ),
        arms=arms,
        controls=controls,
        retrieval=_retrieval(output),
        people=[_story(catalog, showcase.path, story) for story in content["people"]],
        stages=list(seconds.items()),
        notes=_notes(arms, controls),
    )


def gather_arms(
    config: "PipelineConfig", output: Path, catalog: Catalog, split: Split
) -> tuple[list[ArmRow], dict[str, NDArray[np.int64]]]:
    """A row for each arm and for popularity, and every test target's place under each."""
    popular = rank_by_popularity(catalog, split, split.test)
    columns = shown_columns(COLUMNS, catalog, split)
    rows = [
        ArmRow(
            name="popularity",
            what="baseline: what most people bought",
            ndcg=ndcg_interval(popular.ranks, popular.users),
            metrics=_columns(
                columns, summarize(popular, target_slices(catalog, split, split.test)), ""
            ),
            is_control=True,
        )
    ]
    ranks = {"popularity": popular.ranks}
    for name, arm in config.arms.items():
        artifact = open_artifact(output / "recommenders" / name, kind=arm.kind)
        metrics = artifact.manifest["metrics"]
        ranks[name] = np.load(artifact.path / "test_ranks.npy", allow_pickle=False)
        rows.append(
            ArmRow(
                name=name,
                what=arm.description,
                ndcg=ndcg_interval(ranks[name], split.test.users),
                metrics=_columns(columns, metrics, "test/"),
                trained_parameters=metrics["trained_parameters"],
                seen_targets=metrics["seen_targets"],
                parameters=metrics["parameters"],
                seconds=metrics["seconds"],
                peak_mib=metrics.get("peak_mib") or 0.0,
                is_control=is_control(arm),
            )
        )
    return rows, ranks


def candidates_told(catalog: Catalog, split: Split) -> str:
    """Which items are ranked, what becomes of repeats, and how many targets these are."""
    repeated, targets = split.num_repeated.get("test", 0), len(split.test)
    repeats = split.config.repeats
    of = f"{repeated:,} of {targets + (repeated if repeats == 'drop' else 0):,} test targets repeat an"
    of += " item of their user's history"
    told = {"drop": "and are left out", "mask": "and count as missed", "rank": "and are ranked"}
    whose = "" if repeats == "rank" else " except those already in the user's history"
    kept = ", also those of the user's history" if repeats == "rank" else ""
    return (
        f"All {catalog.num_items:,} items are ranked{whose}{kept}; {of} {told[repeats]} (repeats: "
        f"{repeats}). Equal scores are ordered by a fixed random key."
    )


def shown_columns(columns: Sequence[str], catalog: Catalog, split: Split) -> list[str]:
    """Those of `columns` that there are targets enough for."""
    few = {"cold/"} if cold_targets(catalog, split).sum() < FEW_COLD else set()
    if split.config.repeats == "drop" or not split.num_repeated.get("test", 0):
        few |= {"new/", "repeated/"}
    return [name for name in columns if not name.startswith(tuple(few))]


def is_control(arm: ArmConfig) -> bool:
    """A baseline, or one that does not know an item by its own content."""
    return arm.kind == "baseline" or arm.features not in ("content", "content+id")


def cold_targets(catalog: Catalog, split: Split) -> NDArray[np.bool_]:
    """Which test targets were never bought in training: bool (targets,)."""
    interactions = catalog.interactions
    return ~split.warm_items[interactions.items[target_rows(interactions, split.test)]]


def _columns(names: list[str], metrics: dict[str, Any], prefix: str) -> dict[str, float]:
    values = {name: metrics.get(f"{prefix}{name}") for name in names}
    return {name: math.nan if value is None else value for name, value in values.items()}


def ranking_claims(
    config: "PipelineConfig",
    arms: list[ArmRow],
    ranks: dict[str, NDArray[np.int64]],
    catalog: Catalog,
    split: Split,
) -> list[Claim]:
    """What the ranking table says, as far as this run has the arms to say it.

    In the demo world it is known how well content can do, so ratios have goals there; on a real
    shop the interval must lie above 1.
    """
    headline = config.headline
    goals = (3.0, 1.3, 5.0) if config.world else (None, None, None)
    people = split.test.users
    ndcg = {name: metric_values(r, users=people)["ndcg@10"] for name, r in ranks.items()}
    claims = [
        _ratio_claim(
            "Content and history rank the next item better than popularity (NDCG@10)",
            ndcg[headline],
            ndcg["popularity"],
            goals[0],
        )
    ]
    if "shuffled" in ndcg:
        sentence = (
            "It is the content that helps: the same model reading other items' content is worse"
        )
        claims.append(_ratio_claim(sentence, ndcg[headline], ndcg["shuffled"], goals[1]))
    cold = cold_targets(catalog, split)
    if "id" in ndcg and cold.sum() >= FEW_COLD:
        recall = {
            name: metric_values(ranks[name][cold], users=people[cold])["recall@10"]
            for name in (headline, "id")
        }
        sentence = (
            "Items never bought in training are found by their content (Recall@10 against ids)"
        )
        claims.append(_ratio_claim(sentence, recall[headline], recall["id"], goals[2]))
    if {"lora", "full"} <= set(ndcg):
        (lora,) = [arm for arm in arms if arm.name == "lora"]
        share = lora.trained_parameters / lora.parameters
        ratio = ratio_interval(ndcg["lora"], ndcg["full"])
        claims.append(
            Claim(
                "Low-rank updates come close to retraining everything (NDCG@10 against full)",
                f"{ratio.value:.1%} with {share:.1%} of the parameters trained",
                "at least 95 % with at most 5 %",
                ratio.value >= 0.95 and share <= 0.05,
            )
        )
    return claims


def _ratio_claim(
    sentence: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], goal: float | None
) -> Claim:
    ratio = ratio_interval(ours, theirs)
    figure = f"{ratio.value:.2f}× [{ratio.low:.2f}, {ratio.high:.2f}]"
    if math.isinf(ratio.value):
        figure = f"{ours.mean():.3f} against 0"
    if goal is None:
        return Claim(sentence, figure, "interval above 1", ratio.low > 1)
    return Claim(sentence, figure, f"at least {goal:g}×", ratio.value >= goal)


def content_claims(controls: list[ControlRow]) -> list[Claim]:
    """One claim for each measure: is one's own better than a stranger's, beyond doubt?"""
    claims = []
    for row in controls:
        neutral = 1.0 if "/" in row.contrast_name else 0.0
        if row.higher_is_better:
            met = row.contrast.low > neutral
        else:
            met = row.contrast.high < neutral
        figure = f"{row.contrast.value:.3g} [{row.contrast.low:.3g}, {row.contrast.high:.3g}]"
        direction = "above" if row.higher_is_better else "below"
        claims.append(
            Claim(
                f"{row.measure}: own against somebody else's ({row.contrast_name})",
                figure,
                f"interval {direction} {neutral:g}",
                met,
            )
        )
    return claims


def gather_controls(scores: dict[str, Any]) -> list[ControlRow]:
    """Own, swapped and no person, for pictures and for words."""
    rows = []
    for measure, figures in scores["images"]["measures"].items():
        rows.append(
            ControlRow(
                measure=measure,
                own=Interval(**figures["own"]),
                swapped=Interval(**figures["swapped"]),
                nobody=Interval(**figures["none"]),
                contrast=Interval(**figures["contrast"]),
                contrast_name=figures["contrast_name"],
                higher_is_better=figures["higher_is_better"],
                people=figures["people"],
            )
        )
    for name, figures in scores["words"]["likelihood"].items():
        if "own" not in figures:
            continue
        task, item = name.split(", item ")
        what = "next item's own words" if task == "description" else f"true {task}"
        difference = Interval(**figures["swapped_minus_own"])
        rows.append(
            ControlRow(
                measure=f"Nats a token of the {what}, item {item}",
                own=Interval(**figures["own"]["nats_per_token"]),
                swapped=Interval(**figures["swapped"]["nats_per_token"]),
                nobody=Interval(**figures["none"]["nats_per_token"]),
                contrast=Interval(-difference.value, -difference.high, -difference.low),
                contrast_name="own − swapped",
                higher_is_better=False,
                people=figures["texts"],
            )
        )
    for name, figures in scores["words"].get("readings", {}).items():
        if "own" not in figures:
            continue
        rows.append(
            ControlRow(
                measure=name,
                own=Interval(**figures["own"]),
                swapped=Interval(**figures["swapped"]),
                nobody=None,
                contrast=Interval(**figures["own_minus_swapped"]),
                contrast_name="own − swapped",
                higher_is_better=True,
                people=figures["texts"],
            )
        )
    return rows


def card(catalog: Catalog, item: int) -> ItemCard:
    """An item as the catalog has it, its picture no larger than the page shows it."""
    row = catalog.items[item]
    title = row["title"] or f"({row['item_id']}, no title)"
    return ItemCard(title=title, category=row["category"] or "", picture=shown(row["image"]))


def shown(path: str | None) -> bytes | None:
    """A picture file of any kind as PNG or JPEG, `SHOWN_PIXELS` a side at most; None where it is
    missing or broken."""
    if not path:
        return None
    try:
        height, width = read_image_shape(path)
        if max(height, width) <= SHOWN_PIXELS and kind_of_picture(Path(path).read_bytes()):
            read_image(path, 32)  # opens to its end
            return Path(path).read_bytes()
        scale = min(1.0, SHOWN_PIXELS / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = Image.fromarray(read_image(path, size))
    except BrokenFileError:
        return None
    file = BytesIO()
    pixels.save(file, "JPEG", quality=88)
    return file.getvalue()


def _window(catalog: Catalog) -> list[int]:
    """Items for a first impression: a fixed draw of those with a picture that opens."""
    drawn = np.random.default_rng(3).permutation(catalog.num_items)
    shown = (int(item) for item in drawn if catalog.item_image(int(item), 32) is not None)
    return [item for item, _ in zip(shown, range(12), strict=False)]


def _story(catalog: Catalog, folder: Path, story: dict[str, Any]) -> PersonStory:
    creations = []
    for creation in story["creations"]:
        files = {told: folder / f"{creation['files']}-{told}.png" for told in creation["words"]}
        made = {  # a picture that might not be shown, or was of a user who is forgotten, is missing
            told: Made(files[told].read_bytes() if files[told].exists() else None, words)
            for told, words in creation["words"].items()
        }
        creations.append(
            Creation(
                item=card(catalog, creation["item"]),
                own=made["own"],
                swapped=made["swapped"],
                nobody=made["none"],
                swapped_with=story["partner"],
            )
        )
    return PersonStory(
        person=story["user"],
        history=[card(catalog, item) for item in story["history"]],
        recommended=[card(catalog, item) for item in story["recommended"]],
        bought_next=card(catalog, story["bought_next"]),
        creations=creations,
        note=story["note"],
    )


def _facts(
    config: "PipelineConfig", output: Path, catalog: Catalog, split: Split
) -> list[tuple[str, str]]:
    encoder = open_artifact(output / "encoder", kind="encoder").manifest["metrics"]
    return [
        ("shop", catalog.name),
        ("items", f"{catalog.num_items:,}"),
        ("people", f"{catalog.num_users:,}"),
        ("interactions", f"{len(catalog.interactions):,}"),
        ("test targets", f"{len(split.test):,}"),
        ("encoder", f"{encoder['parameters']:,} parameters, {encoder['steps']:,} steps"),
    ]


def _retrieval(output: Path) -> list[RetrievalRow]:
    metrics = open_artifact(output / "encoder", kind="encoder").manifest["metrics"]
    rows = []
    for name, figures in metrics.items():
        if not name.startswith("retrieval/"):
            continue
        rows.append(
            RetrievalRow(
                asks=name.removeprefix("retrieval/"),
                recalls={k: figures[k] for k in figures if k.startswith("R@")},
                chance=figures["chance R@10"],
                popularity=figures.get("popularity R@10"),
                queries=figures["queries"],
                candidates=figures["candidates"],
            )
        )
    return rows


def _curves(config: "PipelineConfig", output: Path) -> list[Curve]:
    def read(folder: Path) -> dict[str, list[list[float]]]:
        return json.loads((folder / "curves.json").read_text())

    folders = {name: output / "recommenders" / name for name in config.arms}
    arms = {  # baselines and zero-shot have none
        name: read(folder) for name, folder in folders.items() if (folder / "curves.json").exists()
    }

    def of_arms(figure: str) -> dict[str, list[list[float]]]:
        return {name: curves[figure] for name, curves in arms.items() if figure in curves}

    return [
        Curve("Pretraining", "loss", read(output / "encoder")),
        Curve("Fine-tuning", "loss", of_arms("loss")),
        Curve("Fine-tuning, validation", "NDCG@10", of_arms("validation NDCG@10")),
        Curve("Words", "loss", read(output / "text")),
        Curve("Pictures", "loss", read(output / "image")),
    ]


def _notes(arms: list[ArmRow], controls: list[ControlRow]) -> list[str]:
    """What a careful reader should know; what fell short stands in the claims, unmet."""
    notes = [
        "Each arm was trained once with one seed; the intervals are over people, not over seeds.",
        "Everything under “made for” is generated. It is not a picture of an item on sale.",
    ]
    if seen := [arm.name for arm in arms if arm.seen_targets]:
        notes.insert(
            0,
            "The encoder was pretrained on interactions that are targets here. The figures of "
            f"{', '.join(seen)} prove nothing.",
        )
    ranked = {arm.name: arm.ndcg.value for arm in arms}
    if {"lora", "scratch"} <= set(ranked):
        ratio = ranked["lora"] / max(ranked["scratch"], 1e-9)
        verdict = "helped" if ratio > 1.02 else "hurt" if ratio < 0.98 else "made no difference"
        notes.append(
            f"Pretraining {verdict} here: {ratio:.2f}× the NDCG@10 of the same model from scratch "
            "at equal steps."
        )
    return notes
