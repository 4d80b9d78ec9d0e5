"""Examines a catalog: runs every check, and formats the report as text."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.doctor import (
    interactions,
    item_ids,
    items,
    near_texts,
    personal,
    pictures,
    splits,
    texts,
    tokens,
)
from catalog.doctor.context import Context, current_time, temporary_folder
from catalog.doctor.facts import distributions, facts
from catalog.doctor.finding import CheckReport, Finding
from catalog.doctor.kinds import SEVERITIES

HEADINGS = {"error": "Errors", "warning": "To look at", "hint": "Hints"}
Check = Callable[[Context], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    *items.CHECKS,
    *item_ids.CHECKS,
    *texts.CHECKS,
    *near_texts.CHECKS,
    *personal.CHECKS,
    *tokens.CHECKS,
    *pictures.CHECKS,
    *interactions.CHECKS,
    *splits.CHECKS,
)


def check_catalog(
    config: CatalogConfig,
    *,
    tokenizer: str = "",
    mismatch: NDArray[np.float32] | None = None,
    now: float | None = None,
) -> CheckReport:
    """Loads a catalog, decodes every image once, and reports faults; VitrineError if it cannot be loaded.

    Interactions with unknown items are dropped and reported here rather than refused.
    tokenizer: name or path of a tokenizer, for the share of unknown tokens. mismatch (num_items,): for each
    item the share of other images and texts that fit better than its own; NaN where one is missing.
    now: seconds since 1970, by default the clock's.
    """
    catalog = load_catalog(replace(config, unknown_items="drop"), quiet=True)
    now = current_time() if now is None else now
    with temporary_folder() as folder:
        context = Context(catalog, Path(folder), now, tokenizer, mismatch)
        known = {**facts(context), **splits.split_facts(context)}
        findings = [one for check in CHECKS for one in check(context)]
        findings.sort(key=lambda one: SEVERITIES.index(one.severity))
        shown = distributions(context)
    return CheckReport(catalog.name, known, findings, catalog.notes, shown, catalog)


def format_report(report: CheckReport) -> str:
    """The report as plain text, one line per fact, two per finding, and how the tables were read."""
    width = max(map(len, report.facts))
    lines = [report.name, *(f"  {name:<{width}}  {fact}" for name, fact in report.facts.items())]
    if report.notes:
        lines += ["", f"How it was read ({len(report.notes)})", *(f"  {n}" for n in report.notes)]
    if report.ok:
        return "\n".join([*lines, "", "No faults found."])
    for severity in SEVERITIES:
        found = [one for one in report.findings if one.severity == severity]
        if found:
            lines += ["", f"{HEADINGS[severity]} ({len(found)})"]
        for one in found:
            lines += [f"  • {one.what}  [{one.kind}]", f"    → {one.remedy}"]
    return "\n".join(lines)
