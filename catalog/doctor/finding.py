"""What the doctor returns: findings, each with all affected rows, and the report of a catalog."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.doctor.kinds import KINDS, SEVERITIES, Severity, Unit
from catalog.notes import Note

NAMED = 3
"""Examples that a finding lists."""
SCHEMA = 1
"""Version of the JSON form of a report; increased when a field is renamed or removed."""


@dataclass(frozen=True)
class Finding:
    """A fault of the catalog, and its remedy."""

    kind: str
    """Slug, a key of `KINDS`."""
    severity: Severity
    what: str
    """One sentence with the count and the first examples."""
    remedy: str
    count: int = 1
    """Number of affected items, users or interactions."""
    examples: tuple[str, ...] = ()
    """Up to three: ids of items or users, with what was found in them."""
    unit: Unit = "catalog"
    rows: NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, np.int64), repr=False, compare=False
    )
    """(n,): every affected row of the unit's table; empty for the whole catalog."""


def finding(
    kind: str,
    what: str,
    *,
    count: int = 1,
    examples: tuple[str, ...] = (),
    unit: Unit = "catalog",
    rows: NDArray[np.int64] | None = None,
    remedy: str = "",
) -> Finding:
    """A finding of a kind, with the severity and, unless another is given, the remedy of `KINDS`."""
    known = KINDS[kind]
    rows = np.empty(0, np.int64) if rows is None else np.asarray(rows, np.int64)
    return Finding(kind, known.severity, what, remedy or known.remedy, count, examples, unit, rows)


@dataclass(frozen=True)
class Distribution:
    """How many items, users or interactions lie in each of several ranges of a quantity."""

    title: str
    unit: str
    """What is counted."""
    labels: list[str]
    """(num_bins,): the range of each bar."""
    counts: list[int]
    """(num_bins,)"""


@dataclass(frozen=True)
class CheckReport:
    """All that the doctor found in one catalog."""

    name: str
    facts: dict[str, str]
    """Properties of the catalog: name → value, in the order of the report."""
    findings: list[Finding] = field(default_factory=list)
    """The worst severity first."""
    notes: list[Note] = field(default_factory=list)
    """How the tables were read: what was decided, dropped or left empty."""
    distributions: list[Distribution] = field(default_factory=list)
    catalog: Catalog | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        return not self.findings

    def at_least(self, severity: Severity) -> list[Finding]:
        """The findings of this severity or a worse one."""
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return [one for one in self.findings if one.severity in worst]

    def rows(self, kind: str, unit: Unit = "items") -> NDArray[np.int64]:
        """Every row (n,) of the unit that findings of this kind name, ascending."""
        found = [one.rows for one in self.findings if (one.kind, one.unit) == (kind, unit)]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def report_json(report: CheckReport) -> str:
    """The report as JSON: schema, catalog, facts, findings, notes, distributions."""
    findings = [
        {
            "kind": one.kind,
            "severity": one.severity,
            "what": one.what,
            "remedy": one.remedy,
            "count": one.count,
            "unit": one.unit,
            "examples": list(one.examples),
        }
        for one in report.findings
    ]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "catalog": report.name,
        "fingerprint": report.catalog.fingerprint if report.catalog else None,
        "facts": report.facts,
        "findings": findings,
        "notes": [str(note) for note in report.notes],
        "distributions": [vars(one) for one in report.distributions],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
