"""Reads prices and ratings: numbers, and text such as "$85.00", "1.234,56 €" or "from 14.99"."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import first_text
from catalog.errors import VitrineError
from catalog.notes import Notes

NUMBER = r"(?:\d+(?:[' ]\d{3})*(?:[.,]\d+)*|[.,]\d+)"
LETTERS = r"(?:\pL{1,4}\.?)"
CURRENCY = rf"(?:{LETTERS}(?:\s?\p{{Sc}})?|\s?\p{{Sc}})"
LOWER_BOUND = r"from|starting (?:at|from)|as low as|ab|à partir de|dès|desde|da|vanaf|od"
BEFORE = (
    rf"(?i)^(?:(?:(?P<bound>{LOWER_BOUND})|now|only|price|sale|rrp|msrp|approx\.?|about|ca\.):?\s)?"
    rf"(?P<minus>-)?(?P<currency>{CURRENCY})?\s?(?P<inner>-)?$"
)
UNIT = r"(?:/|\*|(?:per|pro|each|incl|inkl|stars?)\b).*"
AFTER = (
    rf"(?i)^(?:[.,][-–—]+)?\s?(?:{UNIT}|(?P<currency>{CURRENCY})?[.,]?[-–—]*"
    rf"\s?(?P<bound>\+|and up|or more|upwards)?\s?(?:{UNIT})?)$"
)
BETWEEN = rf"(?i)^\s?{CURRENCY}?\s?(?:-|–|—|~|to|bis|à|a)\s?{CURRENCY}?\s?$"
OUT_OF = r"(?i)^\s?(?:/|out of|of|von|sur)\s?$"
"""Between a rating and the best possible one: "4.5 out of 5"."""
SINGLE = rf"^(?P<before>\D*?)(?P<low>{NUMBER})(?P<after>\D*)$"
RANGE = rf"^(?P<before>\D*?)(?P<low>{NUMBER})(?P<between>\D+?)(?P<high>{NUMBER})(?P<after>\D*)$"
NO_NUMBER = pa.array(
    [
        *("n/a", "na", "nan", "none", "null", "-", "--", "–", "—", "?", "tba", "tbd", "unknown"),
        *(
            "free",
            "free to play",
            "gratis",
            "kostenlos",
            "gratuit",
            "sold out",
            "call for price",
            "on request",
        ),
    ],
    pa.large_string(),
)
"""Texts, in lower case, that say that there is no number."""
GROUPED = r"^\d{1,3}([.,]\d{3})$"
ALIASES = {"$": "USD", "us$": "USD", "usd": "USD", "€": "EUR", "eur": "EUR", "£": "GBP"}
ALIASES |= {"gbp": "GBP", "¥": "JPY", "jpy": "JPY", "₹": "INR", "inr": "INR", "rs": "INR"}


@dataclass(frozen=True)
class _Numbers:
    """Numbers of the distinct texts of a column."""

    values: NDArray[np.float64]
    """(n,), nan where there is none"""
    is_bound: NDArray[np.bool_]
    """(n,) whether the text gives a lower bound"""
    is_blank: NDArray[np.bool_]
    """(n,) whether the text says that there is no number"""


def read_numbers(
    column: pa.ChunkedArray,
    name: str,
    where: str,
    notes: Notes,
    *,
    decimal: str = "auto",
    rating: bool = False,
    counts: NDArray[np.int64] | None = None,
) -> pa.ChunkedArray:
    """The column as float64, null where it has no finite number; what cannot be read is counted.

    `where` names the table in notes, `decimal` the decimal mark (see `CatalogConfig`). `counts`
    (n,): of distinct texts, the rows of each in the table. Raises VitrineError for a column whose
    values are no numbers at all.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    numeric = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if not any(is_kind(kind) for is_kind in numeric):
        return _read_texts(
            first_text(column, name), name, f"{where}: {name}", notes, decimal, rating, counts
        )
    return _finite(column.cast(pa.float64(), safe=False), f"{where}: {name}", notes)


def _finite(numbers: pa.ChunkedArray, where: str, notes: Notes) -> pa.ChunkedArray:
    finite = pc.is_finite(numbers)
    if pc.all(finite).as_py() is not False:
        return numbers
    infinite = pc.sum(pc.is_inf(numbers)).as_py()
    if infinite:
        what = f"{infinite} infinite numbers become empty"
        notes.add(where, what, "empty", count=infinite)
    return pc.if_else(finite, numbers, pa.scalar(None, pa.float64()))


def _read_texts(
    column: pa.ChunkedArray,
    name: str,
    where: str,
    notes: Notes,
    decimal: str,
    rating: bool,
    counts: NDArray[np.int64] | None,
) -> pa.ChunkedArray:
    if decimal != "comma":
        try:
            numbers = column.cast(pa.float64())
        except pa.ArrowInvalid:
            pass
        else:
            _note_grouped(column, where, notes, decimal)
            return _finite(numbers, where, notes)
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    texts = encoded.dictionary
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    given = codes >= 0
    weights = None if counts is None else counts[given]
    rows = np.bincount(codes[given], weights, minlength=len(texts)).astype(np.int64)
    found = _parse(texts, where, notes, decimal, rating)
    unread = np.isnan(found.values) & ~found.is_blank
    if rows[unread].sum() == rows.sum() > 0:
        raise VitrineError(
            f"the column {name} is not numeric: {int(rows.sum())} values such as "
            f"{texts[0].as_py()[:40]!r} hold no number; choose another with roles."
        )

    def note(mask: NDArray[np.bool_], what: str, kind: str, remedy: str = "") -> None:
        if count := int(rows[mask].sum()):
            named = texts.filter(pa.array(mask))[:3].to_pylist()
            how = {"count": count, "examples": named, "remedy": remedy}
            notes.add(where, f"{count} values {what}", "empty" if kind else "decided", **how)

    remedy = "write a single number" if not rating else "write ratings as numbers"
    note(unread, "hold no number that can be read and become empty", "empty", remedy)
    note(found.is_blank, "say that there is no number and become empty", "empty")
    note(found.is_bound, "are ranges or lower bounds; the lower number is read", "")
    values = np.append(found.values, np.nan)[codes]
    return pa.chunked_array([pa.array(values, pa.float64(), mask=np.isnan(values))])


def _note_grouped(column: pa.ChunkedArray, where: str, notes: Notes, decimal: str) -> None:
    """Notes numbers such as 1.234 throughout, whose point could separate thousands."""
    first = next((value for value in column[:100].to_pylist() if value), "")
    if decimal == "auto" and "." in first and len(first) - first.index(".") == 4:
        grouped = pc.match_substring_regex(column, GROUPED)
        if pc.all(grouped).as_py():
            notes.add(
                where,
                "numbers have three digits after a point throughout, which is read as decimal mark",
                examples=[first],
                remedy="set --catalog.decimal comma if the point separates thousands",
            )


def _parse(texts: pa.Array, where: str, notes: Notes, decimal: str, rating: bool) -> _Numbers:
    plain = pc.replace_substring_regex(
        texts, pattern=r"[\s\x{A0}\x{2009}\x{202F}]+", replacement=" "
    )
    plain = pc.replace_substring_regex(plain, pattern="[’‘´`]", replacement="'")
    plain = pc.replace_substring_regex(plain, pattern="−", replacement="-")
    plain = pc.utf8_trim_whitespace(plain)
    blank = pc.is_in(pc.utf8_lower(plain), value_set=NO_NUMBER).to_numpy(zero_copy_only=False)
    low = np.full(len(texts), "", object)
    negative, bound = np.zeros(len(texts), np.bool_), np.zeros(len(texts), np.bool_)
    currencies: dict[str, str] = {}
    for pattern, between in ((SINGLE, None), (RANGE, BETWEEN), (RANGE, OUT_OF if rating else None)):
        if pattern is RANGE and between is None:
            continue
        left = np.flatnonzero((low == "") & ~blank)
        if not len(left):
            break
        fields = pc.extract_regex(plain.take(pa.array(left)), pattern=pattern)
        before = pc.extract_regex(_part(fields, "before"), pattern=BEFORE)
        after = pc.extract_regex(_part(fields, "after"), pattern=AFTER)
        fits = pc.and_(pc.is_valid(before), pc.is_valid(after))
        if between is not None:
            fits = pc.and_(fits, pc.match_substring_regex(_part(fields, "between"), between))
        # "SKU-12" holds no number below zero.
        no_sign = pc.invert(pc.match_substring_regex(_part(before, "currency"), r"\p{Sc}"))
        fits = pc.and_not(fits, pc.and_(no_sign, pc.equal(_part(before, "inner"), "-")))
        fits = pc.fill_null(fits, False)
        rows = left[fits.to_numpy(zero_copy_only=False)]
        if not len(rows):
            continue
        fields, before, after = fields.filter(fits), before.filter(fits), after.filter(fits)
        low[rows] = _part(fields, "low").to_numpy(zero_copy_only=False)
        negative[rows] = _given(before, "minus") | _given(before, "inner")
        bound[rows] = _given(before, "bound") | _given(after, "bound") | (between is BETWEEN)
        for parts in (before, after):
            for sign in pc.unique(_part(parts, "currency")).to_pylist():
                key = (sign or "").lower().strip(" .")
                if key:
                    currencies.setdefault(ALIASES.get(key, key), sign.strip())
    if len(currencies) > 1 and not rating:
        what = f"prices are in {len(currencies)} currencies, and are compared as if in one"
        notes.add(where, what, examples=currencies.values(), remedy="convert them to one currency")
    values = _values(pa.array(low, pa.large_string()), where, notes, decimal)
    return _Numbers(np.where(negative, -values, values), bound, blank)


def _part(fields: pa.Array, name: str) -> pa.Array:
    """One group of a regular expression, null where it did not match."""
    return pc.struct_field(fields, name)


def _given(fields: pa.Array, name: str) -> NDArray[np.bool_]:
    return pc.not_equal(_part(fields, name), "").to_numpy(zero_copy_only=False)


def _values(tokens: pa.Array, where: str, notes: Notes, decimal: str) -> NDArray[np.float64]:
    """The numbers (n,) of digits with marks, by the decimal mark of the column; nan for ""."""
    tokens = pc.replace_substring_regex(tokens, pattern="[' ]", replacement="")

    def matches(pattern: str) -> NDArray[np.bool_]:
        return pc.match_substring_regex(tokens, pattern).to_numpy(zero_copy_only=False)

    # Both marks: the last one is decimal. One mark twice separates thousands. One mark once is decimal
    # unless three digits follow it, and one to three, not only 0, precede it.
    decides: Callable[[str, str], NDArray[np.bool_]] = lambda mark, other: (  # noqa: E731
        matches(rf"[{other}].*[{mark}]\d*$")
        | matches(rf"^\d*[{mark}](?:\d{{1,2}}|\d{{4,}})$")
        | matches(rf"^(?:0|\d{{4,}})?[{mark}]\d{{3}}$")
        | matches(rf"^\d{{1,3}}(?:[{other}]\d{{3}}){{2,}}$")
    )
    comma, point = decides(",", "."), decides(".", ",")
    if decimal != "auto":
        comma = np.full(len(tokens), decimal == "comma")
    else:
        unclear = matches(GROUPED) & ~comma & ~point
        if comma.any() and point.any():
            one, other = (tokens[int(np.flatnonzero(mask)[0])].as_py() for mask in (comma, point))
            remedy = "set --catalog.decimal point or comma"
            what = "numbers have decimal commas and decimal points; each is read by its own form"
            notes.add(where, what, examples=[one, other], remedy=remedy)
            comma = comma | (unclear & (comma.sum() > point.sum()))
        elif comma.any() or point.any():
            comma = np.full(len(tokens), comma.any())
        elif unclear.any():
            comma = matches(r"\.")  # the mark before three digits separates thousands
            what = "a mark before three digits throughout is read as one that separates thousands"
            remedy = "set --catalog.decimal point or comma"
            examples = tokens.filter(pa.array(unclear))[:3].to_pylist()
            notes.add(where, what, examples=examples, remedy=remedy)
    as_point = pc.replace_substring(tokens, pattern=",", replacement="")
    as_comma = pc.replace_substring(tokens, pattern=".", replacement="")
    as_comma = pc.replace_substring(as_comma, pattern=",", replacement=".")
    plain = pc.if_else(pa.array(comma), as_comma, as_point)
    good = pc.match_substring_regex(plain, r"^(?:\d+\.?\d*|\.\d+)$")
    numbers = pc.if_else(good, plain, pa.scalar(None, plain.type)).cast(pa.float64())
    values = numbers.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)
