"""Validates a catalog before training: reports its contents, its faults and their remedies."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.catalog import Catalog, load_catalog
from catalog.columns import as_text
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.notes import Note
from catalog.reorder import ReorderedInteractions, reorder_histories
from catalog.sources import SOURCES
from catalog.splits import make_split

NAMED = 3
"""Examples that a finding lists."""
SIDE = 32
"""Size at which images are decoded, only to find broken ones."""


@dataclass(frozen=True)
class Finding:
    """A fault of the catalog, and its remedy."""

    what: str
    remedy: str
    count: int = 1
    """Number of affected items or interactions."""


@dataclass(frozen=True)
class CheckReport:
    name: str
    facts: dict[str, str]
    """Properties of the catalog: name → value, in the order of the report."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    """How the tables were read: what was decided, dropped or left empty."""

    @property
    def ok(self) -> bool:
        return not self.findings


def check_catalog(config: CatalogConfig) -> CheckReport:
    """Loads a catalog, decodes every image once, and reports faults; VitrineError if it cannot be loaded.

    Interactions with unknown items are dropped and reported here rather than refused.
    """
    catalog = load_catalog(replace(config, unknown_items="drop"), quiet=True)
    raw = SOURCES[config.source].tables(config)
    hashes = _decode_all(catalog)
    facts = {
        "users": f"{catalog.num_users:,}",
        "items": f"{catalog.num_items:,}",
        "interactions": f"{len(catalog.interactions):,}",
        "history lengths": _history_lengths(catalog),
        "times": _time_range(catalog),
        **_presence(catalog, set(hashes)),
        "item columns": _roles(catalog.roles["items"]),
        "interaction columns": _roles(catalog.roles["interactions"]),
    }
    split_facts, split_findings = _split(catalog)
    findings = [
        *_unknown_items(catalog),
        *_broken_images(catalog),
        *_duplicate_interactions(catalog),
        *_duplicate_texts(catalog),
        *_duplicate_images(catalog, hashes),
        *_suspect_rows(raw.read_items()),
        *split_findings,
    ]
    return CheckReport(catalog.name, facts | split_facts, findings, catalog.notes)


def format_report(report: CheckReport) -> str:
    """The report as plain text, one line per fact, two per finding, and how the tables were read."""
    width = max(map(len, report.facts))
    lines = [report.name, *(f"  {name:<{width}}  {fact}" for name, fact in report.facts.items())]
    if report.notes:
        lines += ["", f"How it was read ({len(report.notes)})", *(f"  {n}" for n in report.notes)]
    if report.ok:
        return "\n".join([*lines, "", "No faults found."])
    lines += ["", f"To look at ({len(report.findings)})"]
    for finding in report.findings:
        lines += [f"  • {finding.what}", f"    → {finding.remedy}"]
    return "\n".join(lines)


def _decode_all(catalog: Catalog) -> dict[int, str]:
    """Item → hash of its image file, for every image that can be decoded."""
    hashes: dict[int, str] = {}
    for item, path in enumerate(catalog.items["image"][:]):
        if path is not None and catalog.item_image(item, SIDE) is not None:
            with Path(path).open("rb") as file:
                hashes[item] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _history_lengths(catalog: Catalog) -> str:
    quantiles = np.quantile(np.diff(catalog.interactions.offsets), [0, 0.25, 0.5, 0.75, 1])
    least, low, median, high, most = (f"{value:g}" for value in quantiles)
    return f"median {median}; half of all users {low} to {high}; all {least} to {most}"


def _time_range(catalog: Catalog) -> str:
    first, last = int(catalog.interactions.times.min()), int(catalog.interactions.times.max())
    if not catalog.has_timestamps:
        return "none; each user's items are in order"
    if "time" not in catalog.roles["interactions"]:
        return "none; the file's order counts"
    return f"{_moment(first)} to {_moment(last)}"


def _moment(value: int) -> str:
    """A date where the number can be one (seconds, milli- or microseconds since 1970)."""
    for unit in (1, 1_000, 1_000_000):
        if 100_000_000 <= value // unit < 10_000_000_000:
            return datetime.fromtimestamp(value / unit, UTC).strftime("%Y-%m-%d")
    return str(value)


def _presence(catalog: Catalog, with_image: set[int]) -> dict[str, str]:
    with_text = {item for item in range(catalog.num_items) if catalog.item_text(item)}
    num = catalog.num_items
    return {
        "items with text": _share(len(with_text), num),
        "items with an image": _share(len(with_image), num),
        "items with both": _share(len(with_text & with_image), num),
        "items with neither": _share(num - len(with_text | with_image), num),
    }


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"


def _roles(roles: dict[str, Any]) -> str:
    pairs = (
        (role, ", ".join(column) if isinstance(column, list) else column)
        for role, column in roles.items()
    )
    return "; ".join(f"{role} = {column}" for role, column in pairs if column)


def _split(catalog: Catalog) -> tuple[dict[str, str], list[Finding]]:
    given, findings = _given_split(catalog)
    try:
        split = make_split(catalog, SplitConfig(repeats="mask"))
        rule = "temporal split"
    except VitrineError:
        split = make_split(catalog, SplitConfig(kind="leave-one-out", repeats="mask"))
        rule = "leave-one-out split (the times allow no temporal split)"
    facts = {
        "split": rule,
        "targets": f"{len(split.validation):,} for validation, {len(split.test):,} for test",
        "cold test targets": f"{split.cold_fractions['test']:.1%}",
        "repeated targets": f"{split.num_repeated['test'] / max(1, len(split.test)):.1%}",
        **given,
    }
    if len(split.test):
        return facts, findings
    remedy = "add users with longer histories"
    if rule == "temporal split":
        remedy = f"set split.kind: leave-one-out, or {remedy}"
    return facts, [*findings, Finding(f"the {rule} has no test targets", remedy)]


def _given_split(catalog: Catalog) -> tuple[dict[str, str], list[Finding]]:
    """Sizes of the split that `split.kind: given` gives, where the interactions have a split column."""
    if catalog.interactions.split_labels is None:
        return {}, []
    config = SplitConfig(kind="given", repeats="mask")
    try:
        arranged = reorder_histories(catalog, config)
    except VitrineError as error:
        return {}, [Finding(str(error), "until then, split.kind: given is refused")]
    assert isinstance(arranged.interactions, ReorderedInteractions)
    sizes = np.bincount(arranged.interactions.parts, minlength=3)
    split = make_split(arranged, config)
    return {
        "given split": "{:,} train, {:,} validation, {:,} test".format(*sizes),
        "given targets": f"{len(split.validation):,} for validation, {len(split.test):,} for test",
    }, []


def _unknown_items(catalog: Catalog) -> list[Finding]:
    if not catalog.num_dropped:
        return []
    what = f"{catalog.num_dropped:,} interactions name items the items table lacks"
    return [Finding(what, "add the items, or set unknown_items: drop", catalog.num_dropped)]


def _broken_images(catalog: Catalog) -> list[Finding]:
    broken = catalog.broken_images
    if not broken:
        return []
    named = "; ".join(
        f"{_image_name(catalog, item)}: {reason}" for item, reason in list(broken.items())[:NAMED]
    )
    what = f"{len(broken):,} images cannot be read ({named})"
    return [Finding(what, "replace them; until then these items count as without one", len(broken))]


def _image_name(catalog: Catalog, item: int) -> str:
    return Path(catalog.items[item]["image"]).relative_to(catalog.folder.resolve()).as_posix()


def _duplicate_interactions(catalog: Catalog) -> list[Finding]:
    interactions = catalog.interactions
    users = np.repeat(np.arange(catalog.num_users), np.diff(interactions.offsets))
    order = np.lexsort([interactions.items, interactions.times, users])
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for keys in (users, interactions.times, interactions.items):
        same &= np.diff(keys[order]) == 0
    count = int(same.sum())
    # Without times a repeated purchase cannot be distinguished from a duplicate row.
    if not count:
        return []
    user = catalog.user_ids[users[order[1:][same][0]]]
    what = f"{count:,} interactions repeat another (same user, item and time), first of {user}"
    return [Finding(what, "remove the copies, or let them stand as quantities", count)]


def _duplicate_texts(catalog: Catalog) -> list[Finding]:
    findings = []
    for column, noun in (("title", "titles"), ("text", "texts")):
        if column == "text" and catalog.roles["items"].get("text") == [
            catalog.roles["items"].get("category")
        ]:
            continue  # items of a category share its name
        values = catalog.items[column][:]
        count, named = _repeats({item: v for item, v in enumerate(values) if v}, catalog)
        if count:
            what = f"{count:,} items share their {noun} with another ({named})"
            remedy = "copies of one item split its history: give them one id, or distinct texts"
            findings.append(Finding(what, remedy, count))
    return findings


def _duplicate_images(catalog: Catalog, hashes: dict[int, str]) -> list[Finding]:
    count, named = _repeats(hashes, catalog)
    if not count:
        return []
    what = f"{count:,} items share their image with another ({named})"
    remedy = "see whether it is a placeholder such as 'no image'; if so remove it"
    return [Finding(what, remedy, count)]


def _repeats(values: dict[int, str], catalog: Catalog) -> tuple[int, str]:
    """The number of items that share their value with another, and first ids of the largest group."""
    counts = Counter(values.values())
    shared = sum(count for count in counts.values() if count > 1)
    if not shared:
        return 0, ""
    most = counts.most_common(1)[0][0]
    group = [item for item, value in values.items() if value == most]
    ids = catalog.items.select(group[:NAMED])["item_id"][:]
    return shared, "items " + ", ".join(ids) + (" …" if len(group) > NAMED else "")


def _suspect_rows(items: pa.Table) -> list[Finding]:
    """Columns of the items table that mark rows as suspect."""
    findings = []
    for name in items.column_names:
        if "suspect" not in name.lower():
            continue
        marks = pc.utf8_lower(as_text(items[name], name))
        count = pc.sum(
            pc.is_in(marks, value_set=pa.array(["true", "1", "yes"], marks.type))
        ).as_py()
        if count:
            what = f"{count:,} items are marked in the column {name}"
            remedy = "look at them; remove their texts and images where they are wrong"
            findings.append(Finding(what, remedy, count))
    return findings
