"""Builds a pipeline's report from its artifacts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.artifacts import open_artifact
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


def write_report(config: PipelineConfig, output: Path, seconds: dict[str, float]) -> Path:
    """Writes OUTPUT/report.html from the run's artifacts; returns its path."""
    path = output / "report.html"
    path.write_text(render_page(build_report(config, output, seconds)), encoding="utf8")
    return path


def build_report(config: PipelineConfig, output: Path, seconds: dict[str, float]) -> Report:
    settings = config.finetune.catalog
    placed = replace(settings, path=settings.path.replace("{output}", str(output)))
    catalog, split = load_split(placed, config.finetune.split)
    arms, ranks = read_arms(config, output, catalog, split)
    showcase = open_artifact(output / "showcase", kind="showcase")
    content = json.loads((showcase.path / "showcase.json").read_text())
    controls = control_rows(content["scores"])
    return Report(
        title=config.title,
        lead=config.lead,
        facts=_facts(config, output, catalog, split),
        window=[item_card(catalog, item) for item in _window(catalog)],
        claims=_ranking_claims(config, arms, ranks, catalog, split) + content_claims(controls),
        curves=read_curves(config, output),
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
        retrieval=read_retrieval(output),
        user_stories=[_story(catalog, showcase.path, story) for story in content["users"]],
        stages=list(seconds.items()),
        notes=_notes(arms, controls),
    )


def _ranking_claims(
    config: PipelineConfig,
    arms: list[ArmRow],
    ranks: dict[str, NDArray[np.int64]],
    catalog: Catalog,
    split: Split,
) -> list[Claim]:
    targets = RankedTargets(ranks, split.test.users, cold_targets(catalog, split))
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
    config: PipelineConfig, output: Path, catalog: Catalog, split: Split
) -> list[tuple[str, str]]:
    encoder = open_artifact(output / "encoder", kind="encoder").manifest["metrics"]
    return [
        ("shop", catalog.name),
        ("items", f"{catalog.num_items:,}"),
        ("users", f"{catalog.num_users:,}"),
        ("interactions", f"{len(catalog.interactions):,}"),
        ("test targets", f"{len(split.test):,}"),
        ("encoder", f"{encoder['parameters']:,} parameters, {encoder['steps']:,} steps"),
    ]


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
