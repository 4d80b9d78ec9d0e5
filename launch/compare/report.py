"""Reads the arms of a comparison and writes its report: a page, Markdown and two tables."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.splits import Split, load_split
from finetune.config import ArmConfig
from finetune.metrics import metric_values
from finetune.significance import compare_pairs, describe_difference
from finetune.statistics import Interval, mean_over_seeds
from launch.compare.config import CompareConfig
from launch.compare.contrasts import planned_contrasts, seed_independent_arms
from launch.compare.convergence import convergence_sentences
from launch.compare.page import comparison_page
from launch.compare.protocol import protocol_text, search_text
from launch.compare.results import Comparison, Measurements, caveats
from launch.compare.tables import comparison_markdown, write_arms, write_targets
from launch.report.contents import ArmRow
from launch.report.protocol import REPEAT_COLUMNS, available_columns, is_control
from launch.search.result import SearchResult

COLUMNS = ("recall@10", "coverage@10", "arp@10", "cold/recall@10", *REPEAT_COLUMNS)
METRIC = "ndcg@10"


def write_comparison(
    config: CompareConfig,
    arms: Mapping[str, ArmConfig],
    folders: Mapping[str, list[Path]],
    output: Path,
    searches: Mapping[str, SearchResult],
    failures: Mapping[str, str],
) -> tuple[Path, list[str]]:
    """Writes `report.html`, `report.md`, `arms.parquet` and `targets.parquet` into `output`.

    `folders`: each arm's artifacts, one for each seed; `searches`: results of arms that were searched;
    `failures`: arms that failed in some seed, and why. Returns the page's path and its sentences.
    """
    catalog, split = load_split(config.finetune.catalog, config.finetune.split)
    measured = read_measurements(arms, folders, searches, failures)
    comparison = compare(config, arms, measured, catalog, split)
    first_seed = config.finetune.trainer.seed
    write_targets(output / "targets.parquet", measured.ranks, first_seed, catalog, split)
    write_arms(output / "arms.parquet", measured.metrics, first_seed, searches)
    (output / "report.md").write_text(comparison_markdown(comparison), encoding="utf8")
    page = output / "report.html"
    page.write_text(comparison_page(comparison), encoding="utf8")
    return page, comparison.notes


def read_measurements(
    arms: Mapping[str, ArmConfig],
    folders: Mapping[str, list[Path]],
    searches: Mapping[str, SearchResult],
    failures: Mapping[str, str],
) -> Measurements:
    """Metrics and test ranks of every arm that did not fail, from its artifacts."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    ranks: dict[str, list[NDArray[np.int64]]] = {}
    for name, arm in arms.items():
        if name in failures:
            continue
        artifacts = [open_artifact(folder, kind=arm.kind) for folder in folders[name]]
        metrics[name] = [artifact.manifest["metrics"] for artifact in artifacts]
        ranks[name] = [np.load(a.path / "test_ranks.npy", allow_pickle=False) for a in artifacts]
    convergence = convergence_sentences(
        {name: arm for name, arm in arms.items() if name in ranks}, folders
    )
    return Measurements(metrics, ranks, convergence, searches, failures)


def compare(
    config: CompareConfig,
    arms: Mapping[str, ArmConfig],
    measured: Measurements,
    catalog: Catalog,
    split: Split,
) -> Comparison:
    """Rows of the arms, and a tested difference with its sentence for each planned contrast."""
    values = {
        name: np.stack([metric_values(r, users=split.test.users)[METRIC] for r in runs])
        for name, runs in measured.ranks.items()
    }
    contrasts = planned_contrasts(
        {name: arm for name, arm in arms.items() if name in measured.ranks}, config.reference
    )
    pairs = [(ours, theirs) for _, ours, theirs in contrasts]
    tested = compare_pairs(values, pairs, seed_independent_arms(arms))
    labels = [label for label, _, _ in contrasts]
    sentences = [
        describe_difference(
            difference,
            label[0].upper() + label[1:],
            float(values[difference.theirs].mean()),
            caveats(difference, measured.searches),
        )
        for label, difference in zip(labels, tested, strict=True)
    ]
    return Comparison(
        title=f"Ways to recommend in {catalog.name}",
        protocol=protocol_text(config, catalog, split)
        + search_text(config, arms, measured.searches),
        rows=_rows(arms, measured, values, available_columns(COLUMNS, catalog, split)),
        contrasts=list(zip(labels, tested, strict=True)),
        sentences=sentences,
        failures=[
            f"{name} failed, so nothing beats it: {reason}"
            for name, reason in measured.failures.items()
        ],
        convergence=measured.convergence,
        searches=measured.searches,
    )


def _rows(
    arms: Mapping[str, ArmConfig],
    measured: Measurements,
    values: Mapping[str, NDArray[np.float64]],
    columns: list[str],
) -> list[ArmRow]:
    rows = []
    for name, arm in arms.items():
        if name in measured.failures:
            row = _failed_row(name, arm, measured.failures[name], columns)
        else:
            row = _measured_row(name, arm, measured.metrics[name], values[name], columns)
        if measured.searches:
            search = measured.searches.get(name)
            row = replace(row, trials=search.trials if search else 0)
        rows.append(row)
    return rows


def _measured_row(
    name: str,
    arm: ArmConfig,
    runs: list[dict[str, Any]],
    values: NDArray[np.float64],
    columns: list[str],
) -> ArmRow:
    def mean(key: str) -> float:
        known = [run[key] for run in runs if run.get(key) is not None]
        return float(np.mean(known)) if known else math.nan

    return ArmRow(
        name=name,
        description=arm.description,
        ndcg=mean_over_seeds(values),
        metrics={column: mean(f"test/{column}") for column in columns},
        trained_parameters=int(mean("trained_parameters")),
        parameters=int(mean("parameters")),
        seconds=mean("seconds"),
        peak_mib=0.0 if math.isnan(mean("peak_mib")) else mean("peak_mib"),
        is_control=is_control(arm),
        seen_targets=int(runs[0]["seen_targets"]),
    )


def _failed_row(name: str, arm: ArmConfig, reason: str, columns: list[str]) -> ArmRow:
    return ArmRow(
        name=name,
        description=arm.description,
        ndcg=Interval(math.nan, math.nan, math.nan),
        metrics=dict.fromkeys(columns, math.nan),
        is_control=is_control(arm),
        failed=reason,
    )
