"""Writes each measured claim as one JSON record; computes from the figures whether its goal is met."""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, SupportsFloat, SupportsIndex, runtime_checkable

from benchmarks.sources import ROOT, changed, script_of, source_hash

RESULTS = ROOT / "benchmarks" / "results"

Figure = float | int | str | None
COMPARISON = re.compile(
    r"""\s*(?P<figure>[A-Za-z]\w*)\s*(?P<sign>>=|<=|==|>|<)\s*(?P<bound>"[^"]*"|[^\s"<>=]+)\s*"""
)


@runtime_checkable
class HasBounds(Protocol):
    """A figure with an interval, such as `finetune.statistics.Interval`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True)
class Record:
    """One measured claim: the content of a file in `benchmarks/results`."""

    name: str
    claim: str
    """The claim that the figures test, in one sentence."""
    command: str
    """Command that measures the figures again, run from the root of the repository."""
    commit: str
    """Commit that was measured; ends in `-dirty` where code had uncommitted changes."""
    date: str
    machine: str
    seeds: list[int]
    figures: dict[str, Figure]
    """Flat; intervals as `x`, `x_low`, `x_high`; null where a figure was not finite."""
    goal: list[str]
    """Comparisons such as `ndcg_ratio_low >= 3.0`; all must hold."""
    met: bool
    note: str
    sources: list[str]
    """Globs from the root of the files that the figures depend on, the benchmark among them."""
    source_hash: str
    """Hash of those files at `commit`, or at `carried`; see `benchmarks.sources`."""
    carried: str = ""
    """Commit up to which the record was carried over a pure renaming (`benchmarks.carry`); "": none."""

    def is_stale(self, root: Path = ROOT) -> bool:
        """Whether a file that the figures depend on has changed since they were measured."""
        return changed(self.sources, self.source_hash, root)


def write_record(
    name: str,
    claim: str,
    command: str,
    seeds: Sequence[int],
    figures: Mapping[str, object],
    goal: Sequence[str],
    sources: Sequence[str],
    note: str = "",
    machine: str | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Writes `folder/<name>.json` and returns its path; `met` is computed from the stored figures.

    A figure may be a number, a text, or an interval (then `x_low` and `x_high` go beside it).
    `sources` are globs from the root of the code and settings that the figures depend on; the script
    that `command` runs is added to them. Raises ValueError if the goal names a figure that was not
    measured, or a source matches no file.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"record name {name!r} must be lower-case words joined by hyphens")
    flat = flat_figures(figures)
    sources = sorted({script_of(command), *sources})
    record = Record(
        name=name,
        claim=claim,
        command=command,
        commit=commit(),
        date=datetime.now(UTC).date().isoformat(),
        machine=machine if machine is not None else describe_machine(),
        seeds=[int(seed) for seed in seeds],
        figures=flat,
        goal=list(goal),
        met=goal_is_met(goal, flat),
        note=note,
        sources=sources,
        source_hash=source_hash(sources, ROOT),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def load_records(folder: Path = RESULTS) -> list[Record]:
    """All records, by name; ValueError where a file lacks a field or has one too many."""
    records = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            record = Record(**content)
        except TypeError as error:
            raise ValueError(f"{path.name} does not hold a record's fields: {error}") from error
        if record.name != path.stem:
            raise ValueError(f"{path.name} calls itself {record.name!r}; let both agree")
        records.append(record)
    return records


def flat_figures(figures: Mapping[str, object]) -> dict[str, Figure]:
    """Flattens intervals into three figures each; rounds numbers to six significant digits."""
    flat: dict[str, Figure] = {}
    for key, value in figures.items():
        if not re.fullmatch(r"[A-Za-z]\w*", key):
            raise ValueError(f"figure name {key!r} must be a word of letters, digits and _")
        if isinstance(value, HasBounds):
            flat[key] = _plain(value.value)
            flat[f"{key}_low"], flat[f"{key}_high"] = _plain(value.low), _plain(value.high)
        else:
            flat[key] = _plain(value)
    return flat


def _plain(value: object) -> Figure:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, SupportsIndex):  # int, bool, numpy integers
        return int(value)
    if isinstance(value, SupportsFloat):
        number = float(value)
        return float(f"{number:.6g}") if math.isfinite(number) else None
    raise ValueError(f"figure {value!r} is neither a number nor a text nor an interval")


def goal_is_met(goal: Sequence[str], figures: Mapping[str, Figure]) -> bool:
    """Whether every comparison holds; ValueError for an empty goal, which any figures would meet."""
    if not goal:
        raise ValueError("the goal is empty; state a comparison such as 'ratio_low >= 1.0'")
    outcomes = [holds(comparison, figures) for comparison in goal]  # all: a malformed one raises
    return all(outcomes)


def holds(comparison: str, figures: Mapping[str, Figure]) -> bool:
    """Whether a comparison `figure sign bound` holds; sign: >= <= > < ==; bound: number, "text" or figure.

    No comparison with a figure that was not finite (null) holds.
    """
    parsed = COMPARISON.fullmatch(comparison)
    if parsed is None:
        raise ValueError(f"cannot read goal {comparison!r}; write it as 'ratio_low >= 1.0'")
    left = _look_up(parsed["figure"], figures)
    right = _bound(parsed["bound"], figures)
    if left is None or right is None:
        return False
    sign = parsed["sign"]
    if sign == "==":
        return left == right
    if isinstance(left, str) or isinstance(right, str):
        raise ValueError(f"goal {comparison!r} orders a text; only == compares texts")
    return {
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
    }[sign]


def _bound(written: str, figures: Mapping[str, Figure]) -> Figure:
    if written.startswith('"'):
        return written[1:-1]
    try:
        number = float(written)
    except ValueError:
        return _look_up(written, figures)
    if not math.isfinite(number):
        raise ValueError(f"a goal's bound must be finite, not {written}")
    return number


def _look_up(key: str, figures: Mapping[str, Figure]) -> Figure:
    if key not in figures:
        raise ValueError(f"the goal names {key!r}, which is not among {sorted(figures)}")
    return figures[key]


def commit() -> str:
    """Short hash of HEAD, `-dirty` where code differs from it; results and prose don't count."""
    head = _git("rev-parse", "--short", "HEAD")
    if not head:  # a copy without git history; GIT_COMMIT may name its commit
        return os.environ.get("GIT_COMMIT", "none")
    code_only = ["--", ".", ":!benchmarks/results", ":!*.md"]
    return f"{head}-dirty" if _git("status", "--porcelain", *code_only) else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_machine() -> str:
    """CPU model, usable cores and memory; nothing that names the machine."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        model = found[1].strip() if found else model
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores, {memory:.0f} GiB RAM"
