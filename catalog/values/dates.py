"""Reads times: numbers, dates and timestamps, and dates in text, as int64."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.values.date_texts import CLOCK_ALONE, parse_dates
from catalog.values.ids import ROUNDED
from catalog.values.names import ORDER_NAMES, plain_name

MICROSECONDS = 1_000_000
BY_FILE_ORDER = "set roles: {time: null} to go by the file's order"
NO_TIME = pa.array(["", "nan", "nat", "none", "null", "n/a", "na", "<na>", "-"], pa.large_string())
"""Texts, in lower case, that stand for a missing time."""
UNITS = [(1e8, 1e11, "seconds"), (1e11, 1e14, "milliseconds"), (1e14, 1e17, "microseconds")]
UNITS += [(1e17, float("inf"), "nanoseconds")]
"""Ranges of whole numbers since 1970 in each unit; in every unit they begin in March 1973."""
PER_MICROSECOND = {"milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}
EXCEL_DAYS = (36_526, 55_153)
"""Serial days of spreadsheets for the years 2000 to 2050."""


def read_times(
    column: pa.ChunkedArray, name: str, dates: str = "auto", notes: Notes | None = None
) -> pa.ChunkedArray:
    """The column as int64: whole numbers unchanged, dates in seconds since 1970.

    If seconds would lose a fraction, the whole column is in microseconds. `dates` says which number
    of 01/12/2020 is the day (see `CatalogConfig`). Raises VitrineError for missing times, for text
    that is not a date, and for columns whose order would be wrong.
    """
    notes = Notes() if notes is None else notes
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    _refuse_missing(column.null_count, name)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = _parse(column.cast(pa.large_string()), name, dates, notes)
        kind = column.type
    if pa.types.is_time(kind):
        raise _clock_error(name, str(column[0].as_py()))
    if pa.types.is_integer(kind):
        return _whole_numbers(column, name, notes)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _fractions(column.cast(pa.float64()), name, notes)
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif not pa.types.is_timestamp(kind):
        raise VitrineError(
            f"the column {name} holds {kind}, which is no time; choose another with roles."
        )
    ticks = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    seconds = pc.divide(ticks, MICROSECONDS)
    lossless = pc.all(pc.equal(pc.multiply(seconds, MICROSECONDS), ticks)).as_py()
    return seconds if lossless is not False else ticks


def is_clock(column: pa.ChunkedArray) -> bool:
    """Whether a column's first value is a time of day without a date."""
    if pa.types.is_time(column.type):
        return True
    given = column.slice(0, 1000).drop_null()
    first = given[0].as_py() if len(given) else None
    if not isinstance(first, str):
        return False
    text = pa.array([first.strip()], pa.large_string())
    return pc.match_substring_regex(text, CLOCK_ALONE)[0].as_py()


def _refuse_missing(count: int, name: str) -> None:
    if count:
        raise VitrineError(
            f"the column {name} lacks {count} times; fill them in, or set "
            "roles: {time: null} to go by the file's order."
        )


def _clock_error(name: str, example: str) -> VitrineError:
    return VitrineError(
        f"the column {name} holds times of day without a date ({example!r}), which order nothing "
        "beyond one day; join them with the date in one column (2020-09-21 14:05:00), choose "
        f"another with roles, or {BY_FILE_ORDER}."
    )


def _parse(column: pa.ChunkedArray, name: str, dates: str, notes: Notes) -> pa.ChunkedArray:
    """Text as int64, float64 or timestamp("us")."""
    column = pc.utf8_trim_whitespace(column)
    rounded = pc.match_substring_regex(column[:1000], ROUNDED)
    if pc.any(rounded).as_py():
        first = column[:1000].filter(rounded)[0].as_py()
        raise VitrineError(
            f"the column {name} holds {first}, which a spreadsheet rounded; export times as whole "
            "numbers or dates."
        )
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values, codes = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)
    rows = np.bincount(codes, minlength=len(values))
    missing = pc.is_in(pc.utf8_lower(values), value_set=NO_TIME).to_numpy(zero_copy_only=False)
    _refuse_missing(int(rows[missing].sum()), name)
    micros, is_read = parse_dates(values, name, dates, notes)
    unread = int(rows[~is_read].sum())
    if unread:
        left = values.filter(pa.array(~is_read))
        if pc.all(pc.match_substring_regex(left, CLOCK_ALONE)).as_py():
            raise _clock_error(name, left[0].as_py())
        first = ", ".join(repr(value[:40]) for value in left[:3].to_pylist())
        raise VitrineError(
            f"the column {name} holds {unread} of {len(codes)} values ({first}) that are neither "
            "numbers nor dates such as 2020-09-21; rewrite or remove them, choose another column "
            f"with roles, or {BY_FILE_ORDER}."
        )
    ticks = pa.array(micros[codes], pa.int64()).cast(pa.timestamp("us"))
    return pa.chunked_array([ticks])


def _whole_numbers(column: pa.ChunkedArray, name: str, notes: Notes) -> pa.ChunkedArray:
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        largest = pc.max(column).as_py()
        raise VitrineError(
            f"the column {name} holds {largest}, which is too large for a time; choose another "
            "with roles."
        ) from error
    values = numbers.to_numpy()
    if len(values):
        unit = _unit(values, name, notes)
        if unit == "seconds":
            _note_compact_dates(values, name, notes)
    return numbers


def _fractions(numbers: pa.ChunkedArray, name: str, notes: Notes) -> pa.ChunkedArray:
    """Whole numbers unchanged; others in microseconds."""
    values = numbers.to_numpy()
    _refuse_missing(int(np.isnan(values).sum()), name)
    if not np.isfinite(values).all() or (np.abs(values) >= 2.0**63).any():
        raise VitrineError(
            f"the column {name} holds numbers too large for a time; choose another with roles."
        )
    if (values == np.floor(values)).all():
        return _whole_numbers(numbers.cast(pa.int64(), safe=False), name, notes)
    factor = PER_MICROSECOND.get(_unit(values, name, notes), float(MICROSECONDS))
    return pa.chunked_array([np.round(values * factor).astype(np.int64)])


def _unit(values: NDArray[np.int64] | NDArray[np.float64], name: str, notes: Notes) -> str:
    """The unit of numbers since 1970, by their size; VitrineError where there are several."""
    low, high = float(values.min()), float(values.max())
    known = plain_name(name) in {plain_name(order) for order in ORDER_NAMES}
    if not known and low >= EXCEL_DAYS[0] and high <= EXCEL_DAYS[1]:
        raise VitrineError(
            f"the column {name} holds numbers such as {low:g}, which look like a spreadsheet's "
            "serial days; format the column as a date (yyyy-mm-dd hh:mm:ss) and export it again, "
            f"or {BY_FILE_ORDER}."
        )
    sizes = [_unit_of(abs(low)), _unit_of(abs(high))]
    if sizes[0] == sizes[1]:
        found = [sizes[0]] if sizes[0] else []
    else:
        sizes_of_all = np.abs(values)
        found = [u for a, b, u in UNITS if ((sizes_of_all >= a) & (sizes_of_all < b)).any()]
    if len(found) > 1:
        examples = [
            f"{values[(np.abs(values) >= a) & (np.abs(values) < b)][0]} in {unit}"
            for a, b, unit in UNITS
            if unit in found
        ]
        raise VitrineError(
            f"the column {name} mixes units of time ({', '.join(examples)}); write all of them in "
            "one unit."
        )
    unit = found[0] if found else "seconds"
    if unit != "seconds":
        notes.add(
            f"interactions: {name}",
            f"numbers are {unit} since 1970 by their size; whole ones stay in this unit, others "
            "become microseconds",
            examples=[values[0]],
        )
    return unit


def _unit_of(size: float) -> str:
    return next((unit for low, high, unit in UNITS if low <= size < high), "")


def _note_compact_dates(values: NDArray[np.int64], name: str, notes: Notes) -> None:
    if values.min() < 19_000_101 or values.max() > 21_001_231:
        return
    months, days = values // 100 % 100, values % 100
    if ((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all():
        notes.add(
            f"interactions: {name}",
            "whole numbers look like dates without separators; they order the interactions, but "
            "the time between them is not in seconds",
            examples=[values[0]],
            remedy="write them as 2020-09-21",
        )
