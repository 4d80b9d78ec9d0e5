"""Checks of the split: enough test targets, a usable split column, no interaction in two parts."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.doctor.context import Context
from catalog.doctor.finding import Finding, finding
from catalog.doctor.groups import group_numbers
from catalog.errors import VitrineError
from catalog.reorder import TEST, TRAIN, ReorderedInteractions, reorder_histories
from catalog.splits import Split, make_split

FEW_TARGETS, REPEATED_SHARE = 100, 0.1
TEMPORAL = "temporal split"
LEAVE_ONE_OUT = "leave-one-out split (the times allow no temporal split)"


@dataclass(frozen=True, eq=False)
class SplitResult:
    """The splits that a catalog allows."""

    rule: str
    split: Split
    given: ReorderedInteractions | None = None
    given_split: Split | None = None
    given_error: str = ""


@lru_cache(maxsize=1)
def split_of(catalog: Catalog) -> SplitResult:
    """The temporal split, or else leave-one-out, and the one that `split.kind: given` gives."""
    try:
        split, rule = make_split(catalog, SplitConfig(repeats="mask")), TEMPORAL
    except VitrineError:
        config = SplitConfig(kind="leave-one-out", repeats="mask")
        split, rule = make_split(catalog, config), LEAVE_ONE_OUT
    catalog.interactions.release()
    if catalog.interactions.split_labels is None:
        return SplitResult(rule, split)
    config = SplitConfig(kind="given", repeats="mask")
    try:
        arranged = reorder_histories(catalog, config)
    except VitrineError as error:
        return SplitResult(rule, split, given_error=str(error))
    assert isinstance(arranged.interactions, ReorderedInteractions)
    return SplitResult(rule, split, arranged.interactions, make_split(arranged, config))


def split_facts(context: Context) -> dict[str, str]:
    """What the report says of the splits."""
    result = split_of(context.catalog)
    split = result.split
    facts = {
        "split": result.rule,
        "targets": f"{len(split.validation):,} for validation, {len(split.test):,} for test",
        "cold test targets": f"{split.cold_fractions['test']:.1%}",
        "repeated targets": f"{split.num_repeated['test'] / max(1, len(split.test)):.1%}",
    }
    if result.given is not None and result.given_split is not None:
        sizes = np.bincount(result.given.parts, minlength=3)
        given = result.given_split
        facts["given split"] = "{:,} train, {:,} validation, {:,} test".format(*sizes)
        targets = f"{len(given.validation):,} for validation, {len(given.test):,} for test"
        facts["given targets"] = targets
    return facts


def test_targets(context: Context) -> Iterable[Finding]:
    """Whether there are enough test targets, and whether they repeat the history."""
    result = split_of(context.catalog)
    count = len(result.split.test)
    repeated = result.split.num_repeated["test"]
    if not count:
        remedy = "add users with longer histories"
        if result.rule == TEMPORAL:
            remedy = f"set split.kind: leave-one-out, or {remedy}"
        yield finding("no-test-targets", f"the {result.rule} has no test targets", remedy=remedy)
    elif count < FEW_TARGETS:
        what = f"the {result.rule} has {count:,} test targets, fewer than {FEW_TARGETS}"
        yield finding("few-test-targets", what, count=count, remedy=_better_split(context, result))
    if count and repeated > REPEATED_SHARE * count:
        share = repeated / count
        what = f"{repeated:,} test targets ({share:.0%}) are in their user's history already"
        yield finding("repeated-targets", what, count=repeated)


def _better_split(context: Context, result: SplitResult) -> str:
    """The kinds of split that have enough targets."""
    enough = []
    for kind in ("leave-one-out", "random"):
        config = SplitConfig(kind=kind, repeats="mask")
        try:
            split = make_split(reorder_histories(context.catalog, config), config)
        except VitrineError:
            continue
        if len(split.test) >= FEW_TARGETS and kind not in result.rule:
            enough.append(f"split.kind: {kind} has {len(split.test):,}")
    return f"{'; '.join(enough)}" if enough else "add users with longer histories"


def given_split(context: Context) -> Iterable[Finding]:
    """A split column that cannot be used, and interactions that are in two of its parts."""
    result = split_of(context.catalog)
    if result.given_error:
        yield finding("given-split", result.given_error)
    if result.given is None or "time" not in context.catalog.roles["interactions"]:
        return  # without times a copy does not differ from an item that was bought again
    arranged = result.given
    rows = [np.empty(0, np.int64), *(_in_both(arranged, *chunk) for chunk in arranged.chunks())]
    sentence = "{n} interactions of the given test part are in training as well"
    yield from context.found("split-overlap", np.concatenate(rows), sentence, "interactions")


def _in_both(arranged: ReorderedInteractions, users: slice, rows: slice) -> NDArray[np.int64]:
    """The source rows (n,) of test interactions of some users that are in training as well."""
    lengths = np.diff(arranged.offsets[users.start : users.stop + 1])
    owners = np.repeat(np.arange(len(lengths)), lengths)
    parts = arranged.parts[rows]
    groups = group_numbers(owners, arranged.items[rows], arranged.times[rows])
    in_train = np.zeros(len(groups), bool)
    in_train[groups[parts == TRAIN]] = True
    both = in_train[groups] & (parts == TEST)
    return arranged.source_rows[rows][both]


CHECKS = (test_targets, given_split)
