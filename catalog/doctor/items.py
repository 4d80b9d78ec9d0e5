"""Checks of the items table: unknown items, copies, marked rows, prices, categories."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.columns import as_text
from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import BATCH, Context
from catalog.doctor.finding import Finding, finding
from catalog.doctor.groups import distinct, first_of_runs, medians

PRICE_DEVIATIONS = 5.0
LEAST_DEVIATION = 0.25
"""Robust deviation of logarithms that is assumed at least: prices of few levels have nearly none."""
MIN_PRICED = 20
"""Prices of a category from which its own median counts."""
SINGLE, DOMINANT = 0.2, 0.8


def unknown_items(context: Context) -> Iterable[Finding]:
    dropped = context.catalog.num_dropped
    if not dropped:
        return []
    what = f"{dropped:,} interactions name items the items table lacks"
    return [finding("unknown-items", what, count=dropped)]


def duplicate_texts(context: Context) -> Iterable[Finding]:
    """Items that share a title, and items that share a text."""
    roles = context.catalog.roles["items"]
    for column, noun in (("title", "titles"), ("text", "texts")):
        if column == "text" and roles.get("text") == [roles.get("category")]:
            continue  # items of a category share its name
        hashes = context.text_hashes(column)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        same = (hashes[1:] == hashes[:-1]) & (hashes[1:] > 0)
        shared = np.append(same, False) | np.insert(same, 0, False)
        if not same.any():
            continue
        rows, starts = order[shared], first_of_runs(hashes[shared])
        counts = np.diff(starts, append=len(rows))
        most = counts.argmax()
        largest = rows[starts[most] : starts[most] + counts[most]]
        sentence = f"{{n}} items share their {noun} with another"
        yield from context.found(f"duplicate-{noun}", rows, sentence, first=largest)


def suspect_rows(context: Context) -> Iterable[Finding]:
    """Columns of the items table that mark rows as suspect."""
    table = context.catalog.columns
    for name in table.column_names:
        if "suspect" not in name.lower():
            continue
        parts = [np.empty(0, np.int64)]
        for start in range(0, len(table), BATCH):
            marks = pc.utf8_lower(as_text(table[name].slice(start, BATCH), name))
            yes = pc.is_in(marks, value_set=pa.array(["true", "1", "yes"], marks.type))
            parts.append(start + np.flatnonzero(pc.fill_null(yes, False).to_numpy()))
        rows = np.concatenate(parts)
        if len(rows):
            yield finding(
                "suspect-rows",
                f"{len(rows):,} items are marked in the column {name}",
                count=len(rows),
                examples=tuple(context.item_ids(rows[:3])),
                unit="items",
                rows=rows,
            )


def prices(context: Context) -> Iterable[Finding]:
    """Prices that are zero or negative, and those far from the median of their category."""
    values = context.column("price").to_numpy().astype(np.float64, copy=False)
    known = np.isfinite(values)
    rows = np.flatnonzero(known & (values <= 0))
    yield from context.found("nonpositive-prices", rows, "{n} prices are zero or negative")
    priced = np.flatnonzero(known & (values > 0))
    if len(priced) < MIN_PRICED:
        return
    logs = np.log(values[priced])
    del values, known
    scores = _deviations(logs, np.median)
    groups = _category_codes(context)[priced]
    own = np.bincount(groups)[groups] >= MIN_PRICED
    if own.any():
        scores[own] = _deviations(logs[own], partial(medians, groups=groups[own]))
    far = priced[np.abs(scores) > PRICE_DEVIATIONS]
    sentence = "{n} prices are far from those of their category"
    yield from context.found("price-outliers", far, sentence)


def _deviations(
    values: NDArray[np.float64], median_of: Callable[[NDArray[np.float64]], Any]
) -> NDArray[np.float64]:
    """How many robust deviations (MAD) each value (n,) lies from the median that `median_of` gives."""
    off = values - median_of(values)
    spread = 1.4826 * median_of(np.abs(off))
    return off / np.maximum(spread, LEAST_DEVIATION)


def _category_codes(context: Context) -> NDArray[np.int32]:
    """A number for each item's category; items without one share a number."""
    hashes = context.text_hashes("category")
    names, codes = distinct(hashes), np.empty(len(hashes), np.int32)
    for start in range(0, len(hashes), BATCH):
        codes[start : start + BATCH] = np.searchsorted(names, hashes[start : start + BATCH])
    return codes


def categories(context: Context) -> Iterable[Finding]:
    """Categories of one item, and one category that holds nearly all."""
    values = context.column("category")
    given = np.flatnonzero(values.is_valid().to_numpy())
    if not len(given):
        return
    codes = _category_codes(context)
    counts = np.bincount(codes[given])
    used = counts > 0
    if used.sum() < 2:
        return
    single = given[counts[codes[given]] == 1]
    if len(single) > SINGLE * used.sum():
        sentence = "{n} items are the only ones of their category"
        yield from context.found("single-item-categories", single, sentence)
    if counts.max() > DOMINANT * len(given):
        rows = given[codes[given] == counts.argmax()]
        name = values[int(rows[0])].as_py()
        sentence = f"{{n}} of {len(given):,} items are of the category {name}"
        yield from context.found("unbalanced-categories", rows, sentence)


CHECKS = (
    unknown_items,
    duplicate_texts,
    suspect_rows,
    prices,
    categories,
)
