"""Checks of items' ids: other items' ids in texts, and ids in the order of popularity or time."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import Context
from catalog.doctor.finding import Finding, finding
from catalog.doctor.groups import spearman
from catalog.id_rows import IdRows

LONG_ID = 6
"""Characters of an id, a digit among them, that is recognized wherever it stands in a text."""
NAMED_ID = r"(?i)\b(?:item|product|article|sku|id|asin)\b[\s:.#-]{0,3}(?P<id>[A-Za-z0-9][\w-]{3,})"
"""A word after which an id of four characters is recognized too."""
ORDER_CORRELATION, ORDER_ERRORS = 0.3, 5.0
"""Spearman's correlation, and its standard errors, from which ids count as ordered."""
MIN_ORDERED, MOST_ORDERED = 50, 1_000_000
"""Items at least, and evenly spaced ones at most, whose ids are compared with their order."""


def ids_in_texts(context: Context) -> Iterable[Finding]:
    rows_of = IdRows(context.column("item_id"))
    found = [np.empty(0, np.int64)]
    for start, texts in context.text_batches():
        own = np.arange(start, start + len(texts))
        words, owners = _long_words(texts)
        found.append(_of_others(rows_of(words), own[owners]))
        named = pc.struct_field(pc.extract_regex(texts, NAMED_ID), "id")
        given = named.is_valid().to_numpy(zero_copy_only=False)
        found.append(_of_others(rows_of(named.drop_null()), own[given]))
    sentence = "{n} items have another item's id in their text"
    return context.found("ids-in-texts", np.concatenate(found), sentence)


def _long_words(texts: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """The words (n,) of texts that have as many characters as `LONG_ID` and a digit, and the place (n,) of
    their text."""
    split = pc.split_pattern_regex(texts, r"[^\w-]+")
    words, owners = pc.list_flatten(split), pc.list_parent_indices(split).to_numpy()
    for holds in (
        lambda words: pc.greater_equal(pc.utf8_length(words), LONG_ID),
        lambda words: pc.match_substring_regex(words, "[0-9]"),
    ):
        chosen = holds(words)
        words, owners = words.filter(chosen), owners[chosen.to_numpy(zero_copy_only=False)]
    return words, owners


def _of_others(found: NDArray[np.int32], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of items (n,) those in whose text the id of another item was found."""
    return np.unique(own[(found >= 0) & (found != own)])


def id_order(context: Context) -> Iterable[Finding]:
    """Whether numbers in ids rise or fall with popularity, or with the first interaction's time."""
    numbers, rows = _id_numbers(context)
    if len(rows) < MIN_ORDERED or len(rows) < 0.9 * context.catalog.num_items:
        return
    sampled, step = "", -(-len(rows) // MOST_ORDERED)
    if step > 1:
        numbers, rows = numbers[::step].copy(), rows[::step].copy()
        sampled = f" of {len(rows):,} sampled"
    for name, values in _quantities(context, rows):
        known = np.isfinite(values)
        if known.sum() < MIN_ORDERED:
            continue
        rho = spearman(numbers[known], values[known])
        if abs(rho) >= ORDER_CORRELATION and abs(rho) * np.sqrt(known.sum() - 1) >= ORDER_ERRORS:
            way = "rise" if rho > 0 else "fall"
            what = f"item ids {way} with the {name} (rank correlation {rho:.2f}{sampled})"
            yield finding("id-order", what, count=int(known.sum()))


def _quantities(
    context: Context, rows: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """What ids may be ordered by: its name, and the values (n,) of items, NaN where there is none."""
    yield "popularity", context.popularity[rows].astype(np.float64)
    if context.time_unit is not None:
        interactions = context.catalog.interactions
        first = np.full(context.catalog.num_items, np.iinfo(np.int64).max)
        for _, part in interactions.chunks():
            np.minimum.at(first, interactions.items[part], interactions.times[part])
        bought = context.popularity[rows] > 0
        yield "time of the first interaction", np.where(bought, first[rows], np.nan)


def _id_numbers(context: Context) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The numbers that end ids, and the rows of the items that have one."""
    numbers, rows = [np.empty(0)], [np.empty(0, np.int64)]
    for start, (ids,) in context.batches("item_id"):
        digits = pc.struct_field(pc.extract_regex(ids, r"^\D*(?P<number>\d{1,15})$"), "number")
        rows.append(start + np.flatnonzero(digits.is_valid().to_numpy(zero_copy_only=False)))
        numbers.append(digits.drop_null().cast(pa.float64()).to_numpy())
    return np.concatenate(numbers), np.concatenate(rows)


CHECKS = (ids_in_texts, id_order)
