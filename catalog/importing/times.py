"""Reads a column of times in batches: its form is decided on the whole column, then each batch is read."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.values.date_texts import parse_dates
from catalog.values.dates import (
    BY_FILE_ORDER,
    MICROSECONDS,
    NO_TIME,
    PER_MICROSECOND,
    UNITS,
    read_times,
)
from catalog.values.ids import is_text

CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?"
"""A time of day: it decides nothing, so that dates with other times of day are the same to the survey."""
BOUNDS = [0.0, *(low for low, _, _ in UNITS)]
Form = Literal["", "whole", "fractions", "dates", "moments", "zoned"]
"""Of a batch or a column: whole numbers, numbers, texts of dates, timestamps, timestamps with a zone."""


class TimeColumn:
    """Times as int64: whole numbers unchanged, fractions and dates in microseconds since 1970."""

    def __init__(self, name: str, dates: str, notes: Notes) -> None:
        self.name, self.dates, self.notes = name, dates, notes
        self.forms: set[Form] = set()
        self.numbers = np.empty(0)
        """Numbers that stand for all: the extremes of each unit, and one with a fraction."""
        self.whole = np.empty(0, np.int64)
        """The same of whole numbers."""
        self.texts: dict[str, int] = {}
        """Texts, without their time of day → rows."""
        self.form: Form = ""
        self.unit = ""
        """seconds, milliseconds, microseconds, nanoseconds; "" where numbers are no time since 1970."""
        self.factor = 1.0
        self.is_date = False
        """Whether the column holds dates, not numbers; known from `decide` on."""

    def survey(self, column: pa.Array) -> None:
        """Adds a batch to what the decision is made by."""
        column = _plain(column)
        if not len(column):
            return
        form = _form(column)
        self.forms.add(form)
        if form in ("whole", "fractions") or not is_text(column):
            self._survey_numbers(column, form)
        if form == "dates" or is_text(column):
            # Numbers and ISO dates are read in one way; a value stands for all of a batch, should
            # other batches hold dates in another form.
            texts = column if form == "dates" else column.slice(0, 1)
            cut = pc.replace_substring_regex(texts, pattern=CLOCK, replacement="10:00:00")
            for entry in pc.value_counts(cut).to_pylist():
                self.texts[entry["values"]] = self.texts.get(entry["values"], 0) + entry["counts"]

    def _survey_numbers(self, column: Any, form: Form) -> None:
        if form == "whole":
            try:
                values = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                read_times(pa.chunked_array([column]), self.name, self.dates, Notes())  # refuses
                raise
            self.whole = _extremes(np.concatenate([self.whole, values]))
        elif form == "fractions":
            values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            self.numbers = _extremes(np.concatenate([self.numbers, values]))
        elif not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
            read_times(pa.chunked_array([column]), self.name, self.dates, self.notes)  # refuses

    def decide(self) -> None:
        """Decides how all batches are read. Raises VitrineError as `read_times`."""
        if not self.forms:
            self.form = "whole"
        elif self.forms == {"whole"}:
            self._decide_numbers(pa.array(self.whole), "whole")
        elif self.forms <= {"whole", "fractions"}:
            values = np.concatenate([self.numbers, self.whole.astype(np.float64)])
            whole = bool((values == np.floor(values)).all())
            self._decide_numbers(pa.array(values), "whole" if whole else "fractions")
        elif self.forms in ({"moments"}, {"zoned"}):
            (self.form,) = self.forms
        else:
            self._decide_dates()
        self.is_date = self.form in ("dates", "moments", "zoned")
        if self.is_date:
            self.unit = "microseconds"
        self.texts = {}

    def _decide_numbers(self, values: pa.Array, form: Form) -> None:
        read_times(pa.chunked_array([values]), self.name, self.dates, self.notes)
        self.form = form
        largest = float(np.abs(values.to_numpy(zero_copy_only=False)).max())
        self.unit = next((unit for low, high, unit in UNITS if low <= largest < high), "")
        if form == "fractions":
            self.factor = PER_MICROSECOND.get(self.unit, float(MICROSECONDS))
            self.unit = self.unit and "microseconds"

    def _decide_dates(self) -> None:
        values = pa.array(list(self.texts), pa.large_string())
        micros, is_read = parse_dates(values, self.name, self.dates, self.notes)
        if not is_read.all():
            left = [text for text, read in zip(self.texts, is_read, strict=True) if not read]
            self._refuse(left, sum(self.texts[text] for text in left))
        if self.dates == "auto":  # as all values decided; a batch alone could decide otherwise
            first, _ = parse_dates(values, self.name, "day-first", Notes())
            self.dates = "day-first" if (first == micros).all() else "month-first"
        self.form = "dates"

    def _refuse(self, left: list[str], rows: int) -> None:
        # Times of day alone, and numbers that a spreadsheet rounded, have an error of their own.
        read_times(pa.chunked_array([pa.array(left[:1])]), self.name, self.dates, Notes())
        raise VitrineError(  # what is read alone, but not with the dates of other rows
            f"the column {self.name} holds {rows} values ({', '.join(map(repr, left[:3]))}) that "
            "are no dates as others are; rewrite or remove them, choose another column with "
            f"roles, or {BY_FILE_ORDER}."
        )

    def read(self, column: pa.Array) -> pa.Array:
        """A batch as int64, null where the time is missing."""
        column = _blank_to_null(column)
        if self.form == "whole":
            if (
                pa.types.is_floating(column.type)
                or pa.types.is_decimal(column.type)
                or (is_text(column) and "fractions" in self.forms)
            ):
                column = column.cast(pa.float64(), safe=False)
                column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
            return column.cast(pa.int64(), safe=False)
        if self.form == "fractions":
            values = column.cast(pa.float64(), safe=False)
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
            return pc.round(pc.multiply(values, self.factor)).cast(pa.int64())
        if self.form == "dates":
            return self._read_texts(column)
        if self.form == "zoned" and is_text(column):
            column = column.cast(pa.timestamp("us", tz="UTC"))
        return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())

    def _read_texts(self, column: pa.Array) -> pa.Array:
        if not is_text(column):
            return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        encoded = column.dictionary_encode()
        micros, is_read = parse_dates(encoded.dictionary, self.name, self.dates, Notes())
        if not is_read.all():
            left = encoded.dictionary.filter(pa.array(~is_read)).to_pylist()
            self._refuse(left, len(left))
        return pc.take(pa.array(micros, pa.int64()), encoded.indices)


def _plain(column: pa.Array) -> pa.Array:
    """The given times, texts trimmed."""
    column = _blank_to_null(column).drop_null()
    if pa.types.is_floating(column.type):
        column = column.filter(pc.invert(pc.is_nan(column)))
    return column


def _blank_to_null(column: Any) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not is_text(column):
        return column
    column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    missing = pc.is_in(pc.utf8_lower(column), value_set=NO_TIME)
    return pc.if_else(missing, pa.scalar(None, column.type), column)


def _form(column: pa.Array) -> Form:
    kind = column.type
    if pa.types.is_integer(kind):
        return "whole"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "fractions"
    if not is_text(column):
        return "moments"
    forms: dict[Form, Any] = {"whole": pa.int64(), "fractions": pa.float64()}
    forms |= {"moments": pa.timestamp("us"), "zoned": pa.timestamp("us", tz="UTC")}
    for form, as_kind in forms.items():
        try:
            column.cast(as_kind)
        except pa.ArrowInvalid:
            continue
        return form
    return "dates"


def _extremes(values: NDArray[Any]) -> NDArray[Any]:
    """Values by which `read_times` decides as by all: the extremes of each unit and exceptions."""
    found = []
    sizes = np.abs(values)
    for low, high in zip(BOUNDS, [*BOUNDS[1:], np.inf], strict=True):
        inside = values[(sizes >= low) & (sizes < high)]
        if len(inside):
            found += [inside.min(), inside.max(), inside[np.argmin(np.abs(inside))]]
    months, days = values // 100 % 100, values % 100
    no_date = (months < 1) | (months > 12) | (days < 1) | (days > 31)
    for odd in (no_date, values != np.floor(values), ~np.isfinite(values)):
        found += list(values[odd][:1])
    return np.unique(np.array(found, values.dtype))
