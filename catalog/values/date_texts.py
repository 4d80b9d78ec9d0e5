"""Reads dates in text by their form, vectorized over the distinct values of a column."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.errors import VitrineError
from catalog.notes import Notes

CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?"
)
ZONE = r"(?:\s*(?P<zone>[a-z]{3,4}|z|(?:utc|gmt)?[+-]\d{1,2}(?::?\d{2})?))?(?:\s*\([a-z ]+\))?"
TAIL = rf"(?:(?:\s*[t,]\s*|\s+(?:at\s+)?|:){CLOCK}{ZONE})?"
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
YEAR = r"(?P<year>\d{4}|\d{2})"
WORD = r"(?P<word>[a-z]{3,9})"
FORMS = (
    rf"(?i)^(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}}){TAIL}$",
    rf"(?i)^{WEEKDAY}(?P<one>\d{{1,2}})(?P<mark>[-/.])\s?(?P<two>\d{{1,2}})[-/.]\s?{YEAR}{TAIL}$",
    rf"(?i)^(?P<month>\d{{1,2}}) (?P<day>\d{{1,2}}), (?P<year>\d{{4}}){TAIL}$",
    rf"(?i)^{WEEKDAY}{WORD}\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>\d{{4}}){TAIL}$",
    rf"(?i)^{WEEKDAY}(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.?[ /-](?:of )?{WORD}\.?,?[ /-]{YEAR}{TAIL}$",
    rf"(?i)^{WEEKDAY}{WORD}\s+(?P<day>\d{{1,2}})\s+{CLOCK}{ZONE}\s+(?P<year>\d{{4}})$",
)
"""ISO and 2020/1/5; 12/13/2010 and 13.12.2020; 09 20, 2015; Sep 20, 2015; 20 September 2015 and RFC 2822;
Thu Mar 22 14:31:30 -0700 2012. All but the last may be followed by a time of day and its zone."""
CLOCK_ALONE = rf"(?i)^t?{CLOCK}$"
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
MONTH_WORDS = [*MONTHS, *(month[:3] for month in MONTHS), "sept"]
MONTH_NUMBERS = np.array([*range(1, 13), *range(1, 13), 9, 0])
"""Number of each month word; the last is that of an unknown word."""
ZONES = {
    "": 0,
    "z": 0,
    "utc": 0,
    "gmt": 0,
    "est": -5,
    "edt": -4,
    "cst": -6,
    "cdt": -5,
    "mst": -7,
    "mdt": -6,
    "pst": -8,
    "pdt": -7,
}
"""Hours that a named zone is ahead of UTC."""
CENTURY = 69
"""Years of two digits below this one are of the 2000s."""


@dataclass
class _Found:
    """The dates of one form, as whole numbers."""

    rows: NDArray[np.int64]
    """(n,) places among the distinct values"""
    parts: dict[str, NDArray[np.int64]]
    """year, month, day, hour, minute, second, micro, offset (seconds ahead of UTC, -1 << 40 where the
    zone is unknown): (n,) each"""
    zoned: NDArray[np.bool_]
    """(n,) whether a zone is given"""


def parse_dates(
    values: pa.Array, name: str, dates: str, notes: Notes
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970 of each distinct text (n,), and which of them could be read (n,)."""
    micros = np.zeros(len(values), np.int64)
    is_read = np.zeros(len(values), np.bool_)
    zoned = np.zeros(len(values), np.bool_)
    clocked = np.zeros(len(values), np.bool_)
    for form in FORMS:
        left = np.flatnonzero(~is_read)
        if not len(left):
            break
        fields = pc.extract_regex(values.take(pa.array(left)), pattern=form)
        matched = pc.is_valid(fields).to_numpy(zero_copy_only=False)
        if not matched.any():
            continue
        fields = fields.filter(pa.array(matched))
        texts = {field.name: fields.field(field.name) for field in fields.type}
        rows = left[matched]
        if "one" in texts:
            _assign_day_and_month(texts, values.take(pa.array(rows)), name, dates, notes)
        if pc.any(pc.equal(pc.utf8_length(texts["year"]), 2)).as_py():
            _note_short_years(values, rows, texts["year"], name, notes)
        found = _numbers(rows, texts)
        ticks, valid = _microseconds(found)
        micros[rows] = ticks
        is_read[rows] = valid
        zoned[rows] = found.zoned
        clocked[rows] = pc.not_equal(texts["hour"], "").to_numpy(zero_copy_only=False)
    naive = is_read & clocked & ~zoned
    if naive.any() and (zoned & is_read).any():
        notes.add(
            f"interactions: {name}",
            "some times have a zone; those without one are read as UTC",
            examples=values.filter(pa.array(naive))[:3].to_pylist(),
            remedy="write the zone of every time",
        )
    return micros, is_read


def _assign_day_and_month(
    texts: dict[str, Any], values: pa.Array, name: str, dates: str, notes: Notes
) -> None:
    """Sets `day` and `month` of 01/12/2020 by the setting, or by all values of the column."""
    one, two = _ints(texts["one"]), _ints(texts["two"])
    day_first, month_first = np.flatnonzero(one > 12), np.flatnonzero(two > 12)
    first = dates == "day-first"
    if dates == "auto":
        if len(day_first) and len(month_first):
            examples = values[int(day_first[0])].as_py(), values[int(month_first[0])].as_py()
            raise VitrineError(
                f"the column {name} holds dates with the day first ({examples[0]!r}) and with the "
                f"month first ({examples[1]!r}); write all of them as 2020-09-21."
            )
        first = bool(len(day_first))
        if not len(day_first) and not len(month_first) and (one != two).any():
            first = pc.all(pc.equal(texts["mark"], ".")).as_py()  # no country writes months so
            order, other = ("day", "month") if first else ("month", "day")
            notes.add(
                f"interactions: {name}",
                f"dates are read with the {order} first, as no number above 12 shows the order",
                examples=values[:3].to_pylist(),
                remedy=f"set --catalog.dates {other}-first if the {other} is first",
            )
    texts["day"], texts["month"] = (
        (texts["one"], texts["two"]) if first else (texts["two"], texts["one"])
    )


def _note_short_years(
    values: pa.Array, rows: NDArray[np.int64], years: pa.Array, name: str, notes: Notes
) -> None:
    short = pc.equal(pc.utf8_length(years), 2).to_numpy(zero_copy_only=False)
    notes.add(
        f"interactions: {name}",
        f"years of two digits are read as {1900 + CENTURY} to {1999 + CENTURY}, after day and month",
        examples=values.take(pa.array(rows[short][:3])).to_pylist(),
        remedy="write years with four digits",
    )


def _numbers(rows: NDArray[np.int64], texts: dict[str, Any]) -> _Found:
    parts = {key: _ints(texts[key]) for key in ("year", "day", "hour", "minute", "second")}
    if "word" in texts:
        known = pa.array(MONTH_WORDS, pa.large_string())
        places = pc.index_in(pc.utf8_lower(texts["word"]), value_set=known)
        parts["month"] = MONTH_NUMBERS[places.fill_null(-1).to_numpy()]
    else:
        parts["month"] = _ints(texts["month"])
    year = parts["year"]
    short = pc.equal(pc.utf8_length(texts["year"]), 2).to_numpy(zero_copy_only=False)
    parts["year"] = np.where(short, year + np.where(year < CENTURY, 2000, 1900), year)
    half = pc.utf8_lower(texts["half"])
    is_half = pc.not_equal(half, "").to_numpy(zero_copy_only=False)
    is_pm = pc.equal(half, "p").to_numpy(zero_copy_only=False)
    hour = parts["hour"]
    no_half = is_half & ((hour < 1) | (hour > 12)) & ~(is_pm & (hour < 24))  # 14:05 PM
    on_clock = np.where(hour > 12, hour, hour % 12 + np.where(is_pm, 12, 0))
    parts["hour"] = np.where(no_half, 99, np.where(is_half, on_clock, hour))
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(texts["fraction"], 6, "0"), 0, 6)
    parts["micro"] = _ints(fraction)
    zone = pc.utf8_lower(texts["zone"])
    parts["offset"] = _offsets(zone)
    return _Found(rows, parts, pc.not_equal(zone, "").to_numpy(zero_copy_only=False))


def _offsets(zone: pa.Array) -> NDArray[np.int64]:
    """Seconds ahead of UTC of each zone; a huge negative number where it is unknown."""
    names = pa.array(list(ZONES), pa.large_string())
    hours = np.array([*ZONES.values(), -(1 << 28)], np.int64)
    seconds = 3600 * hours[pc.index_in(zone, value_set=names).fill_null(-1).to_numpy()]
    numeric = pc.extract_regex(
        zone, pattern=r"^(?:utc|gmt)?(?P<sign>[+-])(?P<hour>\d{1,2}?):?(?P<minute>\d{2})?$"
    )
    given = pc.is_valid(numeric).to_numpy(zero_copy_only=False)
    if given.any():
        parts = numeric.filter(pa.array(given))
        sign = np.where(pc.equal(parts.field("sign"), "-").to_numpy(zero_copy_only=False), -1, 1)
        minutes = 60 * _ints(parts.field("hour")) + _ints(parts.field("minute"))
        seconds[given] = np.where(minutes <= 15 * 60, 60 * sign * minutes, seconds[given])
    return seconds


def _microseconds(found: _Found) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970 in UTC, and which dates exist."""
    parts = found.parts
    month, day = parts["month"], parts["day"]
    months = (parts["year"] - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - first)
    valid &= (parts["hour"] < 24) & (parts["minute"] < 60) & (parts["second"] <= 60)
    valid &= parts["offset"] > -(1 << 30)
    seconds = (first + day - 1) * 86_400 + parts["hour"] * 3600 + parts["minute"] * 60
    seconds += parts["second"] - np.where(valid, parts["offset"], 0)
    return seconds * 1_000_000 + parts["micro"], valid


def _ints(texts: pa.Array) -> NDArray[np.int64]:
    """Digits as int64 (n,), with 0 for no digit."""
    filled = pc.if_else(pc.equal(texts, ""), pa.scalar("0", texts.type), texts)
    return filled.cast(pa.int64()).to_numpy(zero_copy_only=False)
