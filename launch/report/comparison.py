"""Reads the arms of a comparison and says what they show: a page, Markdown, and two tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.splits import Split, load_split, target_rows
from finetune.config import ArmConfig
from finetune.metrics import metric_values
from finetune.statistics import Interval, mean_over_seeds
from finetune.verdict import Difference, differences, say
from launch.report.charts import interval_mark, interval_scale
from launch.report.contents import ArmRow
from launch.report.gather import (
    CONTENT_READ,
    PROTOCOL,
    REPEAT_COLUMNS,
    candidates_told,
    is_control,
    shown_columns,
)
from launch.report.markup import Html, bounds, decimal, tag
from launch.report.pace import paces
from launch.report.page import document
from launch.report.tables import ranking_table, search_table
from launch.search.result import SearchResult, in_short

if TYPE_CHECKING:
    from launch.compare.config import CompareConfig

COLUMNS = ("recall@10", "coverage@10", "arp@10", "cold/recall@10", *REPEAT_COLUMNS)
METRIC = "ndcg@10"


@dataclass
class Comparison:
    title: str
    protocol: str
    rows: list[ArmRow]
    asked: list[tuple[str, Difference]]
    """What was asked, and the answer."""
    sentences: list[str]
    failures: list[str]
    """Of each arm that came to no figures, why."""
    paces: list[str]
    """How soon pretrained arms are where scratch ends."""
    searched: Mapping[str, SearchResult]

    @property
    def notes(self) -> list[str]:
        return [*self.failures, *self.sentences, *self.paces]


def write_comparison(
    config: "CompareConfig",
    arms: Mapping[str, ArmConfig],
    folders: Mapping[str, list[Path]],
    output: Path,
    searched: Mapping[str, SearchResult],
    failed: Mapping[str, str],
) -> tuple[Path, list[str]]:
    """`folders`: each arm's artifacts, one for each seed; `searched`: the arms whose settings were;
    `failed`: arms that came to no figures in some seed, and why.

    Returns the page's path and the verdicts.
    """
    catalog, split = load_split(config.finetune.catalog, config.finetune.split)
    metrics: dict[str, list[dict[str, Any]]] = {}
    ranks: dict[str, list[NDArray[np.int64]]] = {}
    for name, arm in arms.items():
        if name in failed:
            continue
        artifacts = [open_artifact(folder, kind=arm.kind) for folder in folders[name]]
        metrics[name] = [artifact.manifest["metrics"] for artifact in artifacts]
        ranks[name] = [np.load(a.path / "test_ranks.npy", allow_pickle=False) for a in artifacts]
    told = paces({name: arm for name, arm in arms.items() if name in ranks}, folders)
    found = compare(config, arms, metrics, ranks, catalog, split, searched, told, failed)
    first = config.finetune.trainer.seed
    _write_targets(output / "targets.parquet", ranks, first, catalog, split)
    _write_arms(output / "arms.parquet", metrics, first, searched)
    (output / "report.md").write_text(as_markdown(found), encoding="utf8")
    page = output / "report.html"
    page.write_text(as_page(found), encoding="utf8")
    return page, found.notes


def compare(
    config: "CompareConfig",
    arms: Mapping[str, ArmConfig],
    metrics: Mapping[str, list[dict[str, Any]]],
    ranks: Mapping[str, list[NDArray[np.int64]]],
    catalog: Catalog,
    split: Split,
    searched: Mapping[str, SearchResult],
    told: list[str],
    failed: Mapping[str, str],
) -> Comparison:
    from launch.compare.contrasts import questions, without_seed_noise

    values = {
        name: np.stack([metric_values(r, users=split.test.users)[METRIC] for r in runs])
        for name, runs in ranks.items()
    }
    asked = questions({name: arm for name, arm in arms.items() if name in ranks}, config.reference)
    pairs = [(ours, theirs) for _, ours, theirs in asked]
    answers = differences(values, pairs, without_seed_noise(arms))
    columns = shown_columns(COLUMNS, catalog, split)
    sentences = [
        say(
            answer,
            what[0].upper() + what[1:],
            float(values[answer.theirs].mean()),
            _beware(answer, searched),
        )
        for (what, _, _), answer in zip(asked, answers, strict=True)
    ]
    return Comparison(
        title=f"Ways to recommend in {catalog.name}",
        protocol=_protocol(config, catalog, split) + _searches(config, arms, searched),
        rows=[
            replace(
                _failed_row(name, arm, failed[name], columns)
                if name in failed
                else _row(name, arm, metrics[name], values[name], columns),
                trials=(searched[name].trials if name in searched else 0) if searched else None,
            )
            for name, arm in arms.items()
        ],
        asked=[(what, answer) for (what, _, _), answer in zip(asked, answers, strict=True)],
        sentences=sentences,
        failures=[f"{name} failed, so nothing beats it: {why}" for name, why in failed.items()],
        paces=told,
        searched=searched,
    )


def _beware(answer: Difference, searched: Mapping[str, SearchResult]) -> str:
    """What a difference cannot say: of arms trained once, and where one side alone was searched."""
    known = [name for name in (answer.ours, answer.theirs) if name in searched]
    one_sided = f"only the settings of {known[0]} were searched" if len(known) == 1 else ""
    return "; ".join(told for told in (answer.caveat, one_sided) if told)


def _row(
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
        what=arm.description,
        ndcg=mean_over_seeds(values),
        metrics={column: mean(f"test/{column}") for column in columns},
        trained_parameters=int(mean("trained_parameters")),
        parameters=int(mean("parameters")),
        seconds=mean("seconds"),
        peak_mib=0.0 if math.isnan(mean("peak_mib")) else mean("peak_mib"),
        is_control=is_control(arm),
        seen_targets=int(runs[0]["seen_targets"]),
    )


def _failed_row(name: str, arm: ArmConfig, why: str, columns: list[str]) -> ArmRow:
    return ArmRow(
        name=name,
        what=arm.description,
        ndcg=Interval(math.nan, math.nan, math.nan),
        metrics=dict.fromkeys(columns, math.nan),
        is_control=is_control(arm),
        failed=why,
    )


def _protocol(config: "CompareConfig", catalog: Catalog, split: Split) -> str:
    common = config.finetune
    targets = catalog.interactions.items[target_rows(catalog.interactions, split.test)]
    times = split.train_counts[targets] if len(targets) else np.zeros(1)
    return (
        f"{PROTOCOL[common.split.kind]}. {candidates_told(catalog, split)} "
        f"{len(split.test):,} targets; {split.cold_fractions['test']:.0%} of them "
        f"were never taken in training (cold), half of them {np.median(times):,.0f} times or more (the "
        f"oftener, the more ids know of them). Trained arms: {common.trainer.max_steps:,} steps of "
        f"{common.data.rows} packed rows, the weights of the best look at validation, "
        f"{config.seeds} {'seed' if config.seeds == 1 else 'seeds'}. {_inference(config.seeds)} "
        f"{CONTENT_READ[common.content_statistics]} Time and memory: of fitting and ranking, on this machine."
    )


def _inference(seeds: int) -> str:
    """How intervals and p come about, and what so many seeds can decide."""
    if seeds == 1:
        return (
            "Intervals and p (Student's t, corrected by Holm over all differences of the table) are "
            "over users alone: with one seed training noise is not measured, and the same arms "
            "trained again may come out the other way."
        )
    return (
        "Intervals (95 %) and p (Student's t, corrected by Holm over all differences of the table) "
        f"are over users and trainings, both as random draws: with {seeds} seeds an arm's training "
        f"noise is known from {seeds - 1} {'degree' if seeds == 2 else 'degrees'} of freedom, so that "
        "where it outweighs the users' only differences of many times the noise are found."
    )


def _searches(
    config: "CompareConfig", arms: Mapping[str, ArmConfig], searched: Mapping[str, SearchResult]
) -> str:
    if not searched:
        return ""
    search, alone = config.search, [name for name in arms if name not in searched]
    steps = f"{search.steps:,} steps" if search.steps else "as many steps as the arm"
    return (
        f" Settings: the best of {search.trials} trials for each arm, by NDCG@10 on validation alone, "
        f"in a catalog from which the test targets were cut off; {steps} each, proposed by TPE with "
        f"seed {search.seed}." + (f" Nothing was searched for {', '.join(alone)}." if alone else "")
    )


def as_page(found: Comparison) -> str:
    ticks = interval_scale([answer.value for _, answer in found.asked], 0.0) if found.asked else []
    heads = ("What is asked", "arm", "against", "difference in NDCG@10", "", "p (Holm)", "reading")
    rows = [
        _asked_row(what, answer, ticks, _beware(answer, found.searched))
        for what, answer in found.asked
    ]
    table = tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", [tag("th", head, scope="col") for head in heads])),
            tag("tbody", rows),
        ),
        class_="table",
        tabindex=0,
        role="region",
        aria_label="Differences",
    )
    hero = [
        tag("p", "Vitrine", class_="brand"),
        tag("h1", found.title, dir="auto"),
        tag("p", _pretraining(found), class_="lead"),
    ]
    lead = tag(
        "p",
        "Each line takes one arm from another over the same users. A difference counts where the chance ",
        "of which users and trainings were drawn would make one as large in fewer than 5 of 100 such ",
        "tables. A circle marks what is not decided: no clear difference, or arms trained only once.",
        class_="lead",
    )
    sections = [
        ("ranking", "How well each ranks", [ranking_table(found.rows), _quiet(found.protocol)]),
        ("differences", "What makes the difference", [lead, table] if rows else []),
        ("settings", "What was searched", [search_table(found.searched)] if found.searched else []),
        (
            "verdicts",
            "In words",
            [
                tag(
                    "ul",
                    [tag("li", s) for s in (*found.failures, *found.sentences, *found.paces)],
                    class_="notes",
                )
            ],
        ),
    ]
    return document(found.title, hero, sections, tag("p", "Written by vitrine compare."))


def _quiet(text: str) -> Html:
    return tag("p", text, class_="protocol")


def _pretraining(found: Comparison) -> str:
    told = [
        s
        for (what, _), s in zip(found.asked, found.sentences, strict=True)
        if what.startswith("pretraining")
    ]
    told += found.paces
    return " ".join(told) or "No arm here tells whether pretraining helped; compare with scratch."


def _asked_row(what: str, answer: Difference, ticks: list[float], beware: str) -> Html:
    looks = {"better": ("✓", "met"), "worse": ("✗", "unmet"), "no difference": ("○", "unclear")}
    sign, look = looks["no difference" if answer.caveat else answer.word]
    figure = [
        tag("span", decimal(answer.value.value), class_="value"),
        tag("span", bounds(answer.value), class_="bounds"),
    ]
    return tag(
        "tr",
        tag(
            "th",
            tag("span", what, class_="arm"),
            tag("span", beware, class_="what") if beware else None,
            scope="row",
        ),
        tag("td", answer.ours),
        tag("td", answer.theirs),
        tag("td", figure, class_="number"),
        tag("td", interval_mark(answer.value, ticks, "ours", reference=0.0)),
        tag("td", f"{answer.adjusted:.3g}", class_="number"),
        tag("td", tag("span", f"{sign} {answer.word}", class_=f"reading {look}")),
    )


def as_markdown(found: Comparison) -> str:
    columns = list(found.rows[0].metrics)
    heads = [*columns, "trials"] if found.searched else columns
    lines = [
        f"# {found.title}",
        "",
        f"| arm | NDCG@10 | 95 % interval | {' | '.join(heads)} | trained | of | seconds | MiB |",
        f"| --- | {'---: | ' * (6 + len(heads))}",
    ]
    for row in found.rows:
        if row.failed:
            lines.append(f"| {row.name} | failed | {'| ' * (5 + len(heads))}|")
            continue
        cells = [f"{row.metrics[column]:.4g}" for column in columns]
        cells += [str(row.trials)] if found.searched else []
        lines.append(
            f"| {row.name} | {row.ndcg.value:.4f} | {row.ndcg.low:.4f} – {row.ndcg.high:.4f} | "
            f"{' | '.join(cells)} | {row.trained_parameters:,} | {row.parameters:,} | "
            f"{row.seconds:.0f} | {row.peak_mib:.0f} |"
        )
    lines += ["", found.protocol, ""]
    lines += [f"- {sentence}" for sentence in found.notes]
    lines += _search_lines(found.searched)
    return "\n".join(lines) + "\n"


def _search_lines(searched: Mapping[str, SearchResult]) -> list[str]:
    if not searched:
        return []
    lines = [
        "",
        "| arm | trials | diverged | best on validation | setting | between | chosen |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for name, found in searched.items():
        for setting, between in found.space.items():
            lines.append(
                f"| {name} | {found.trials} | {found.diverged} | {found.score:.4f} | {setting} | "
                f"{between} | {in_short(found.chosen[setting])} |"
            )
    return lines


def _write_targets(
    path: Path,
    ranks: Mapping[str, list[NDArray[np.int64]]],
    first_seed: int,
    catalog: Catalog,
    split: Split,
) -> None:
    """arm, seed, user_id, item_id, rank; an arm and seed at a time."""
    users = pa.array(catalog.user_ids[split.test.users].tolist(), pa.string())
    wanted = catalog.interactions.items[target_rows(catalog.interactions, split.test)]
    items = catalog.items.data.column("item_id").take(pa.array(wanted)).combine_chunks()
    writer = None
    for name, runs in ranks.items():
        for seed, places in enumerate(runs, first_seed):
            table = pa.table(
                {
                    "arm": pa.array([name] * len(users)).dictionary_encode(),
                    "seed": pa.array(np.full(len(users), seed, np.int32)),
                    "user_id": users,
                    "item_id": items,
                    "rank": pa.array(places),
                }
            )
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_arms(
    path: Path,
    metrics: Mapping[str, list[dict[str, Any]]],
    first_seed: int,
    searched: Mapping[str, SearchResult],
) -> None:
    """One row for each arm and seed, every measured figure a column, and every searched setting."""
    names = sorted({key for runs in metrics.values() for run in runs for key in run})
    chosen = {
        arm: {"trials": found.trials} | {f"search/{name}": v for name, v in found.chosen.items()}
        for arm, found in searched.items()
    }
    settings = sorted({name for of_arm in chosen.values() for name in of_arm})
    rows = [
        {"arm": arm, "seed": seed, **{name: _number(run.get(name)) for name in names}}
        | {name: _number(chosen.get(arm, {}).get(name)) for name in settings}
        for arm, runs in metrics.items()
        for seed, run in enumerate(runs, first_seed)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
