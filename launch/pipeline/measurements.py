"""Reads what a pipeline's artifacts measured: rankings, retrieval, curves, and scores of content."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.splits import Split
from finetune.baselines.popularity import rank_by_popularity
from finetune.evaluate import ndcg_interval
from finetune.metrics import summarize, target_slices
from finetune.statistics import Interval
from launch.pipeline.config import PipelineConfig
from launch.report.contents import (
    ArmRow,
    ControlRow,
    Curve,
    RetrievalRow,
)
from launch.report.protocol import REPEAT_COLUMNS, available_columns, is_control

COLUMNS = ("recall@10", "mrr", "coverage@10", "cold/recall@10", *REPEAT_COLUMNS)


def read_arms(
    config: PipelineConfig, output: Path, catalog: Catalog, split: Split
) -> tuple[list[ArmRow], dict[str, NDArray[np.int64]]]:
    """A row for each arm and for popularity, and each arm's rank of every test target."""
    popular = rank_by_popularity(catalog, split, split.test)
    columns = available_columns(COLUMNS, catalog, split)
    rows = [
        ArmRow(
            name="popularity",
            description="baseline: the items most users bought",
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
                description=arm.description,
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


def _columns(names: list[str], metrics: dict[str, Any], prefix: str) -> dict[str, float]:
    values = {name: metrics.get(f"{prefix}{name}") for name in names}
    return {name: math.nan if value is None else value for name, value in values.items()}


def control_rows(scores: dict[str, Any]) -> list[ControlRow]:
    """Scores conditioned on the user, on another user, and unconditional: images, then texts."""
    return [
        *_image_rows(scores["image"]),
        *_likelihood_rows(scores["text"]["likelihood"]),
        *_identification_rows(scores["text"].get("readings", {})),
    ]


def _image_rows(scores: dict[str, Any]) -> Iterator[ControlRow]:
    for measure, figures in scores["metrics"].items():
        yield ControlRow(
            measure=measure,
            own=Interval(**figures["own"]),
            swapped=Interval(**figures["swapped"]),
            unconditional=Interval(**figures["none"]),
            contrast=Interval(**figures["contrast"]),
            contrast_name=figures["contrast_name"],
            higher_is_better=figures["higher_is_better"],
            num_users=figures["num_users"],
        )


def _likelihood_rows(likelihoods: dict[str, Any]) -> Iterator[ControlRow]:
    for name, figures in likelihoods.items():
        if "own" not in figures:
            continue
        task, item = name.split(", item ")
        what = "next item's own text" if task == "description" else f"true {task}"
        difference = Interval(**figures["swapped_minus_own"])
        yield ControlRow(
            measure=f"Negative log-likelihood (nats per token) of the {what}, item {item}",
            own=Interval(**figures["own"]["token_nll"]),
            swapped=Interval(**figures["swapped"]["token_nll"]),
            unconditional=Interval(**figures["none"]["token_nll"]),
            contrast=Interval(-difference.value, -difference.high, -difference.low),
            contrast_name="own − swapped",
            higher_is_better=False,
            num_users=figures["texts"],
        )


def _identification_rows(readings: dict[str, Any]) -> Iterator[ControlRow]:
    for name, figures in readings.items():
        if "own" not in figures:
            continue
        yield ControlRow(
            measure=name,
            own=Interval(**figures["own"]),
            swapped=Interval(**figures["swapped"]),
            unconditional=None,
            contrast=Interval(**figures["own_minus_swapped"]),
            contrast_name="own − swapped",
            higher_is_better=True,
            num_users=figures["texts"],
        )


def read_retrieval(output: Path) -> list[RetrievalRow]:
    """The encoder's retrieval recalls."""
    metrics = open_artifact(output / "encoder", kind="encoder").manifest["metrics"]
    rows = []
    for name, figures in metrics.items():
        if not name.startswith("retrieval/"):
            continue
        rows.append(
            RetrievalRow(
                query=name.removeprefix("retrieval/"),
                recalls={k: figures[k] for k in figures if k.startswith("R@")},
                chance=figures["chance R@10"],
                popularity=figures.get("popularity R@10"),
                num_queries=figures["queries"],
                num_candidates=figures["candidates"],
            )
        )
    return rows


def read_curves(config: PipelineConfig, output: Path, left: Sequence[str] = ()) -> list[Curve]:
    """Loss curves of every stage but those `left`, and NDCG@10 of validation targets."""

    def read(folder: Path) -> dict[str, list[list[float]]]:
        return json.loads((folder / "curves.json").read_text())

    folders = {name: output / "recommenders" / name for name in config.arms}
    arms = {  # baselines and zero-shot have none
        name: read(folder) for name, folder in folders.items() if (folder / "curves.json").exists()
    }

    def of_arms(figure: str) -> dict[str, list[list[float]]]:
        return {name: curves[figure] for name, curves in arms.items() if figure in curves}

    stages = {
        "pretrain": ("Pretraining", output / "encoder"),
        "text": ("Text generator", output / "text"),
        "image": ("Image generator", output / "image"),
    }
    curves = [
        Curve(title, "loss", read(folder))
        for stage, (title, folder) in stages.items()
        if stage not in left
    ]
    if arms:
        curves[1:1] = [
            Curve("Fine-tuning", "loss", of_arms("loss")),
            Curve("Fine-tuning, validation", "NDCG@10", of_arms("validation NDCG@10")),
        ]
    return curves
