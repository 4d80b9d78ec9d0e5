"""Builds a pipeline's report from its artifacts."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.artifacts import open_artifact
from catalog.atomic_write import replace_file
from catalog.catalog import Catalog
from catalog.splits import Split, load_split
from launch.pipeline.claims import (
    DEMO_GOALS,
    RankedTargets,
    RatioGoals,
    content_claims,
    ranking_claims,
)
from launch.pipeline.config import PipelineConfig
from launch.pipeline.measurements import control_rows, read_arms, read_curves, read_retrieval
from launch.pipeline.preview import best_arm, preview
from launch.report.contents import (
    ArmRow,
    Claim,
    ControlRow,
    Generated,
    GeneratedItem,
    Report,
    UserStory,
)
from launch.report.item_cards import item_card
from launch.report.page import render_page
from launch.report.protocol import CONTENT_READ, PROTOCOL, candidates_text, cold_targets


def write_report(
    config: PipelineConfig,
    output: Path,
    seconds: dict[str, float],
    elapsed: float | None = None,
    left: Sequence[str] = (),
) -> Path:
    """Writes OUTPUT/report.html from the run's artifacts; returns its path.

    `seconds`: stage → seconds it took; `elapsed`: those of the whole run; `left`: stages that are not done,
    without which the page is preliminary.
    """
    path = output / "report.html"
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(
        render_page(build_report(config, output, seconds, elapsed, left)), encoding="utf8"
    )
    replace_file(partial, path)
    return path


def build_report(
    config: PipelineConfig,
    output: Path,
    seconds: dict[str, float],
    elapsed: float | None = None,
    left: Sequence[str] = (),
) -> Report:
    """The report of all stages but those `left`."""
    settings = config.finetune.catalog
    placed = replace(settings, path=settings.path.replace("{output}", str(output)))
    catalog, split = load_split(placed, config.finetune.split)
    done = [name for name in config.arms if f"finetune {name}" not in left]
    arms, ranks = read_arms(replace_arms(config, done), output, catalog, split)
    controls, stories, ranked_by = _showcase(config, output, catalog, split, left)
    return Report(
        title=config.title,
        lead=config.lead,
        facts=_facts(output, catalog, split, "pretrain" not in left),
        window=[item_card(catalog, item) for item in _window(catalog)],
        claims=_ranking_claims(config, arms, ranks, catalog, split) + content_claims(controls),
        curves=read_curves(replace_arms(config, done), output, left),
        protocol=(
            f"{PROTOCOL[config.finetune.split.kind]}. {candidates_text(catalog, split)} "
            f"{len(split.test):,} targets; "
            f"{split.cold_fractions['test']:.0%} of them were never bought in training (cold). "
            f"{CONTENT_READ[config.finetune.content_statistics]} "
            "Bars are 95 % bootstrap intervals over users, one training run each; training noise is "
            "not measured."
        ),
        arms=arms,
        controls=controls,
        retrieval=[] if "pretrain" in left else read_retrieval(output),
        user_stories=stories,
        stages=list(seconds.items()),
        elapsed=elapsed,
        parallel_stages=config.parallel_stages,
        notes=_notes(arms, controls),
        missing=list(left),
        ranked_by=ranked_by,
    )


def replace_arms(config: PipelineConfig, names: Sequence[str]) -> PipelineConfig:
    """`config` with only these of its arms."""
    return replace(config, arms={name: config.arms[name] for name in names})


def _showcase(
    config: PipelineConfig, output: Path, catalog: Catalog, split: Split, left: Sequence[str]
) -> tuple[list[ControlRow], list[UserStory], str]:
    """Controls and users of the showcase; without it, users with their ranked lists, and what ranked them."""
    if "showcase" in left:
        lists = preview(config, output, catalog, split, best_arm(config, left))
        return [], lists.stories, lists.ranked_by
    showcase = open_artifact(output / "showcase", kind="showcase")
    content = json.loads((showcase.path / "showcase.json").read_text())
    stories = [_story(catalog, showcase.path, story) for story in content["users"]]
    return control_rows(content["scores"]), stories, ""


def _ranking_claims(
    config: PipelineConfig,
    arms: list[ArmRow],
    ranks: dict[str, NDArray[np.int64]],
    catalog: Catalog,
    split: Split,
) -> list[Claim]:
    targets = RankedTargets(ranks, split.test.users, cold_targets(catalog, split))
    if config.headline not in ranks:
        return []
    goals = DEMO_GOALS if config.world else RatioGoals()
    shares = {arm.name: arm.trained_parameters / arm.parameters for arm in arms if arm.parameters}
    return ranking_claims(targets, config.headline, goals, shares.get("lora", 1.0))


def _window(catalog: Catalog) -> list[int]:
    """Items for a first impression: a fixed draw of those with an image that opens."""
    drawn = np.random.default_rng(3).permutation(catalog.num_items)
    shown = (int(item) for item in drawn if catalog.item_image(int(item), 32) is not None)
    return [item for item, _ in zip(shown, range(12), strict=False)]


def _story(catalog: Catalog, folder: Path, story: dict[str, Any]) -> UserStory:
    generated_items = []
    for generated in story["generated"]:
        # The image of an unsafe sample, or of a user who was erased, is missing.
        by_condition = {
            condition: Generated(_read(folder / f"{generated['files']}-{condition}.png"), text)
            for condition, text in generated["texts"].items()
        }
        generated_items.append(
            GeneratedItem(
                item=item_card(catalog, generated["item"]),
                own=by_condition["own"],
                swapped=by_condition["swapped"],
                unconditional=by_condition["none"],
                swapped_with=story["swapped_user"],
            )
        )
    return UserStory(
        user=story["user"],
        history=[item_card(catalog, item) for item in story["history"]],
        recommended=[item_card(catalog, item) for item in story["recommended"]],
        bought_next=item_card(catalog, story["next_item"]),
        generated_items=generated_items,
        note=story["ground_truth"],
    )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _facts(
    output: Path, catalog: Catalog, split: Split, has_encoder: bool
) -> list[tuple[str, str]]:
    facts = [
        ("shop", catalog.name),
        ("items", f"{catalog.num_items:,}"),
        ("users", f"{catalog.num_users:,}"),
        ("interactions", f"{len(catalog.interactions):,}"),
        ("test targets", f"{len(split.test):,}"),
    ]
    if has_encoder:
        encoder = open_artifact(output / "encoder", kind="encoder").manifest["metrics"]
        size = f"{encoder['parameters']:,} parameters, {encoder['steps']:,} steps"
        facts.append(("encoder", size))
    return facts


def _notes(arms: list[ArmRow], controls: list[ControlRow]) -> list[str]:
    """Limitations of this run; goals that were not reached stand in the claims, unmet."""
    notes = [
        "Each arm was trained once with one seed; the intervals are over users, not over seeds.",
        "Everything under “made for” and “unconditional” is generated. It is no image of an item on sale.",
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
