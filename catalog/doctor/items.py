"""Checks of the items table: unknown items, copies, marked rows, ids, prices, categories."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.columns import as_text
from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import Context, batch_of
from catalog.doctor.finding import Finding, finding

LONG_ID = 6
"""Characters of an id, a digit among them, that is recognized wherever it stands in a text."""
NAMED_ID = r"(?i)\b(?:item|product|article|sku|id|asin)\b[\s:.#-]{0,3}(?P<id>[A-Za-z0-9][\w-]{3,})"
"""A word after which an id of four characters is recognized too."""
ORDER_CORRELATION, ORDER_ERRORS = 0.3, 5.0
"""Spearman's correlation, and its standard errors, from which ids count as ordered."""
MIN_ORDERED = 50
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
        _, groups, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        counts[groups[hashes == 0]] = 0
        if not len(counts) or counts.max() < 2:
            continue
        rows = np.flatnonzero(counts[groups] > 1)
        largest = np.flatnonzero(groups == counts.argmax())
        sentence = f"{{n}} items share their {noun} with another"
        yield from context.found(f"duplicate-{noun}", rows, sentence, first=largest)


def suspect_rows(context: Context) -> Iterable[Finding]:
    """Columns of the items table that mark rows as suspect."""
    table = context.raw.read_items()
    for name in table.column_names:
        if "suspect" not in name.lower():
            continue
        marks = pc.utf8_lower(as_text(table[name], name))
        yes = pc.is_in(marks, value_set=pa.array(["true", "1", "yes"], marks.type))
        rows = np.flatnonzero(pc.fill_null(yes, False).to_numpy())
        if len(rows):
            # A table with rows that reading drops has no row numbers of the catalog.
            aligned = rows if len(table) == context.catalog.num_items else None
            examples = () if aligned is None else tuple(context.item_ids(aligned[:3]))
            yield finding(
                "suspect-rows",
                f"{len(rows):,} items are marked in the column {name}",
                count=len(rows),
                examples=examples,
                unit="items",
                rows=aligned,
            )


def ids_in_texts(context: Context) -> Iterable[Finding]:
    ids = context.column("item_id").cast(pa.large_string()).combine_chunks()
    has_digit = pc.match_substring_regex(ids, "[0-9]")
    long = pc.and_(has_digit, pc.greater_equal(pc.utf8_length(ids), LONG_ID))
    rows = [np.empty(0, np.int64)]
    for start, texts in context.text_batches():
        words = pc.split_pattern_regex(texts, r"[^\w-]+")
        rows.append(start + _naming(words, ids, ids.filter(long), start))
        named = pc.extract_regex(texts, NAMED_ID)
        places = pc.index_in(pc.struct_field(named, "id"), value_set=ids)
        places = pc.fill_null(places, -1).to_numpy()
        rows.append(start + np.flatnonzero((places >= 0) & (places != _own(start, len(texts)))))
    sentence = "{n} items have another item's id in their text"
    return context.found("ids-in-texts", np.concatenate(rows), sentence)


def _own(start: int, count: int) -> NDArray[np.int64]:
    return np.arange(start, start + count)


def _naming(
    words: pa.ListArray, ids: pa.Array, recognized: pa.Array, start: int
) -> NDArray[np.int64]:
    """Rows of `words` with a word that is one of the ids `recognized`, and not the row's own."""
    if not len(recognized):
        return np.empty(0, np.int64)
    flat = pc.list_flatten(words)
    owners = pc.list_parent_indices(words).to_numpy()
    hits = np.flatnonzero(pc.is_in(flat, value_set=recognized).to_numpy(zero_copy_only=False))
    places = pc.index_in(flat.take(pa.array(hits)), value_set=ids).to_numpy()
    return np.unique(owners[hits][places != owners[hits] + start])


def id_order(context: Context) -> Iterable[Finding]:
    """Whether numbers in ids rise or fall with popularity, or with the first interaction's time."""
    numbers, rows = _id_numbers(context)
    if len(rows) < MIN_ORDERED or len(rows) < 0.9 * context.catalog.num_items:
        return
    interactions = context.catalog.interactions
    quantities = {"popularity": context.popularity[rows].astype(np.float64)}
    if context.time_unit is not None:
        first = np.full(context.catalog.num_items, np.iinfo(np.int64).max)
        np.minimum.at(first, interactions.items, interactions.times)
        bought = context.popularity[rows] > 0
        quantities["time of the first interaction"] = np.where(bought, first[rows], np.nan)
    for name, values in quantities.items():
        known = np.isfinite(values)
        if known.sum() < MIN_ORDERED:
            continue
        rho = spearman(numbers[known], values[known])
        if abs(rho) >= ORDER_CORRELATION and abs(rho) * np.sqrt(known.sum() - 1) >= ORDER_ERRORS:
            way = "rise" if rho > 0 else "fall"
            what = f"item ids {way} with the {name} (rank correlation {rho:.2f})"
            yield finding("id-order", what, count=int(known.sum()))


def _id_numbers(context: Context) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The numbers that end ids, and the rows of the items that have one."""
    ids = context.column("item_id").cast(pa.large_string())
    digits = pc.struct_field(pc.extract_regex(ids, r"^\D*(?P<number>\d{1,15})$"), "number")
    rows = np.flatnonzero(digits.is_valid().to_numpy())
    return digits.drop_null().cast(pa.float64()).to_numpy(), rows


def spearman(left: NDArray, right: NDArray) -> float:
    """Spearman's rank correlation of two arrays (n,), ties by mean rank; 0 where one does not vary."""
    ranks = [mean_ranks(values) for values in (left, right)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = np.sqrt(np.square(centred[0]).sum() * np.square(centred[1]).sum())
    return float(centred[0] @ centred[1] / scale) if scale > 0 else 0.0


def mean_ranks(values: NDArray) -> NDArray[np.float64]:
    """The rank of each value (n,), equal values at the mean of their ranks."""
    _, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[groups]


def prices(context: Context) -> Iterable[Finding]:
    """Prices that are zero or negative, and those far from the median of their category."""
    values = context.column("price").to_numpy().astype(np.float64)
    known = np.isfinite(values)
    rows = np.flatnonzero(known & (values <= 0))
    yield from context.found("nonpositive-prices", rows, "{n} prices are zero or negative")
    priced = np.flatnonzero(known & (values > 0))
    if len(priced) < MIN_PRICED:
        return
    logs = np.log(values[priced])
    scores = _deviations(logs, np.zeros(len(logs), np.int64))
    groups = _category_codes(context)[priced]
    counts = np.bincount(groups)
    own = counts[groups] >= MIN_PRICED
    if own.any():
        scores[own] = _deviations(logs[own], groups[own])
    far = priced[np.abs(scores) > PRICE_DEVIATIONS]
    sentence = "{n} prices are far from those of their category"
    yield from context.found("price-outliers", far, sentence)


def _deviations(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many robust deviations (MAD) each value lies from its group's median."""
    medians = _medians(values, groups)
    spread = 1.4826 * _medians(np.abs(values - medians), groups)
    return (values - medians) / np.maximum(spread, LEAST_DEVIATION)


def _medians(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """The median of each value's group."""
    order = np.lexsort((values, groups))
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    middle = (values[order][low] + values[order][high]) / 2
    found = np.empty(len(values))
    found[order] = np.repeat(middle, counts)
    return found


def _category_codes(context: Context) -> NDArray[np.int64]:
    """A number for each item's category; items without one share a number."""
    column = context.column("category").cast(pa.large_string()).combine_chunks()
    codes = pc.fill_null(column, "").dictionary_encode().indices
    return codes.to_numpy().astype(np.int64)


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
        name = batch_of(values.slice(int(rows[0]), 1), 0)[0].as_py()
        sentence = f"{{n}} of {len(given):,} items are of the category {name}"
        yield from context.found("unbalanced-categories", rows, sentence)


CHECKS = (
    unknown_items,
    duplicate_texts,
    suspect_rows,
    ids_in_texts,
    id_order,
    prices,
    categories,
)
