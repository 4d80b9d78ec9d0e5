"""HTML tables of a report: ranking metrics of the arms, retrieval, searches, and controls of generation."""

import math
from collections.abc import Mapping, Sequence

from finetune.statistics import Interval
from launch.report.charts import interval_axis, interval_mark, interval_scale
from launch.report.contents import ArmRow, ControlRow, RetrievalRow
from launch.report.markup import (
    MISSING,
    Child,
    Html,
    bounds,
    count,
    decimal,
    duration,
    percent,
    tag,
)
from launch.search.result import SearchResult, in_short


def ranking_table(arms: Sequence[ArmRow]) -> Html:
    """Every arm on one NDCG scale; baselines and controls in a body of their own."""
    columns = list(dict.fromkeys(name for arm in arms for name in arm.metrics))
    columns = [name for name in columns if name.lower() not in {"ndcg", "ndcg@10"}]
    ticks = interval_scale([arm.ndcg for arm in arms if not arm.failed])
    searched = any(arm.trials is not None for arm in arms)
    heads: list[Child] = [
        tag("th", "Recommender", scope="col"),
        tag("th", "NDCG@10", scope="col", class_="number"),
        tag("th", tag("span", "with its 95 % interval"), interval_axis(ticks), scope="col"),
        [tag("th", name, scope="col", class_="number") for name in columns],
        tag("th", "trials", scope="col", class_="number") if searched else None,
        tag("th", "trained", scope="col", class_="number"),
        tag("th", "time", scope="col", class_="number"),
        tag("th", "memory", scope="col", class_="number"),
    ]
    ours = [arm for arm in arms if not arm.is_control]
    controls = [arm for arm in arms if arm.is_control]
    num_columns = 6 + searched + len(columns)
    groups = [
        ("Recommenders with content", ours, "ours"),
        ("Baselines and controls", controls, "control"),
    ]
    bodies = [
        tag(
            "tbody",
            _group_row(label, num_columns),
            [_arm_row(arm, columns, ticks, look) for arm in rows],
            class_=look,
        )
        for label, rows, look in groups
        if rows
    ]
    return _scrolling(tag("table", tag("thead", tag("tr", heads)), bodies), "Ranking measurements")


def _group_row(label: str, num_columns: int) -> Html:
    name = tag("th", tag("span", label), colspan=num_columns, scope="rowgroup")
    return tag("tr", name, class_="group")


def _arm_row(arm: ArmRow, columns: Sequence[str], ticks: list[float], look: str) -> Html:
    what = tag("span", arm.description, class_="what") if arm.description else None
    if arm.failed:
        rest = 5 + len(columns) + (arm.trials is not None)
        return tag(
            "tr",
            tag("th", tag("span", arm.name, class_="arm"), what, scope="row"),
            tag("td", tag("span", "✗ failed: ", class_="reading unmet"), arm.failed, colspan=rest),
        )
    return tag(
        "tr",
        tag("th", tag("span", arm.name, class_="arm"), what, scope="row"),
        tag("td", _figure(arm.ndcg), class_="number"),
        tag("td", interval_mark(arm.ndcg, ticks, look)),
        [_metric(name, arm.metrics.get(name, math.nan)) for name in columns],
        None if arm.trials is None else tag("td", f"{arm.trials}", class_="number"),
        tag("td", _trained(arm), class_="number"),
        tag("td", duration(arm.seconds) if arm.seconds else MISSING, class_="number"),
        tag("td", f"{arm.peak_mib:,.0f} MiB" if arm.peak_mib else MISSING, class_="number"),
    )


def _figure(interval: Interval, places: int = 4) -> list[Html]:
    value = tag("span", decimal(interval.value, places), class_="value")
    return [value, tag("span", bounds(interval, places), class_="bounds")]


def _metric(name: str, value: float) -> Html:
    is_share = any(word in name.lower() for word in ("share", "coverage", "%"))
    places = 1 if abs(value) >= 10 else 4
    return tag("td", percent(value) if is_share else decimal(value, places), class_="number")


def _trained(arm: ArmRow) -> list[Html] | str:
    if not arm.parameters:
        return MISSING
    share = tag("span", percent(arm.trained_parameters / arm.parameters), class_="value")
    of = f"of {count(arm.parameters)}"
    return [share, tag("span", of, class_="bounds")]


def search_table(searches: Mapping[str, SearchResult]) -> Html:
    """A row for each setting that was searched, under the arm it was searched for."""
    heads = [
        tag("th", "Hyperparameter", scope="col"),
        tag("th", "between", scope="col"),
        tag("th", "chosen", scope="col", class_="number"),
    ]
    bodies = []
    for name, search in searches.items():
        diverged = f", {search.diverged} of them diverged" if search.diverged else ""
        about = f"{name}: {search.trials} trials{diverged}; the best has {search.score:.4f} on validation"
        rows = [
            tag(
                "tr",
                tag("th", tag("span", setting, class_="arm"), scope="row"),
                tag("td", between),
                tag("td", in_short(search.chosen[setting]), class_="number"),
            )
            for setting, between in search.space.items()
        ]
        bodies.append(tag("tbody", _group_row(about, 3), rows))
    return _scrolling(tag("table", tag("thead", tag("tr", heads)), bodies), "Searched settings")


def retrieval_table(rows: Sequence[RetrievalRow]) -> Html:
    """One row for each direction of retrieval, beside chance and popularity."""
    names = [*rows[0].recalls, "chance, R@10", "popularity, R@10"]
    heads = [
        tag("th", "Query → answer", scope="col"),
        *(tag("th", name, scope="col", class_="number") for name in names),
    ]
    body = tag("tbody", [_retrieval_row(row) for row in rows])
    return _scrolling(tag("table", tag("thead", tag("tr", heads)), body), "Retrieval")


def _retrieval_row(row: RetrievalRow) -> Html:
    about = f"{count(row.num_queries)} queries, {count(row.num_candidates)} candidates"
    what = [tag("span", row.query, class_="arm"), tag("span", about, class_="what")]
    popularity = MISSING if row.popularity is None else percent(row.popularity)
    return tag(
        "tr",
        tag("th", what, scope="row"),
        [tag("td", percent(value), class_="number") for value in row.recalls.values()],
        tag("td", percent(row.chance), class_="number"),
        tag("td", popularity, class_="number"),
    )


def controls_table(rows: Sequence[ControlRow]) -> Html:
    """Own, swapped and unconditional side by side, with the paired contrast in words."""
    names = ["Measure", "own user", "another user", "unconditional", "own against another user"]
    heads = [
        tag("th", name, scope="col", class_="number" if 0 < index < 4 else None)
        for index, name in enumerate([*names, "reading"])
    ]
    body = tag("tbody", [_control_row(row) for row in rows])
    return _scrolling(tag("table", tag("thead", tag("tr", heads)), body), "Controls")


def _control_row(row: ControlRow) -> Html:
    direction = "higher is better" if row.higher_is_better else "lower is better"
    about = f"{direction}; {count(row.num_users)} users"
    neutral = 1.0 if "/" in row.contrast_name else 0.0
    ticks = interval_scale([row.contrast], neutral)
    measure = [
        tag("span", row.measure, class_="arm"),
        tag("span", about, class_="what"),
    ]
    contrast = [
        tag("span", f"{row.contrast_name} = ", class_="contrast-name"),
        tag("span", decimal(row.contrast.value, 3), class_="value"),
        tag("span", bounds(row.contrast, 3), class_="bounds"),
        interval_mark(row.contrast, ticks, "ours", reference=neutral),
        tag("span", f"dashed: {neutral:.0f}, no difference", class_="bounds"),
    ]
    mark, look, words = reading(row, neutral)
    unconditional = _figure(row.unconditional, 3) if row.unconditional else MISSING
    return tag(
        "tr",
        tag("th", measure, scope="row"),
        tag("td", _figure(row.own, 3), class_="number"),
        tag("td", _figure(row.swapped, 3), class_="number"),
        tag("td", unconditional, class_="number"),
        tag("td", contrast, class_="contrast"),
        tag("td", tag("span", f"{mark} {words}", class_=f"reading {look}")),
    )


def reading(row: ControlRow, neutral: float) -> tuple[str, str, str]:
    """(sign, look, words): a difference counts only if its whole interval is on one side."""
    if row.contrast.low > neutral:
        better = row.higher_is_better
    elif row.contrast.high < neutral:
        better = not row.higher_is_better
    else:
        return "○", "unclear", "no clear difference"
    if better:
        return "✓", "met", "better with one’s own state"
    return "✗", "unmet", "worse with one’s own state"


def _scrolling(table: Html, label: str) -> Html:
    """A table wider than a phone scrolls by itself, also by keyboard."""
    return tag("div", table, class_="table", tabindex=0, role="region", aria_label=label)
