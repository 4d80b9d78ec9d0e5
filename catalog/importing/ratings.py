"""Reads a column of ratings in batches: how numbers are written is decided on the whole column."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.columns import first_text
from catalog.errors import VitrineError
from catalog.notes import CountedNotes, Notes
from catalog.values.numbers import read_numbers

MOST_TEXTS = 1_000_000
"""Distinct texts of a column by which its form is decided, unless all are plain numbers."""
SAMPLED = 1000


class RatingColumn:
    """Ratings as float64, null where there is none."""

    def __init__(self, name: str, decimal: str, notes: Notes) -> None:
        self.name, self.decimal, self.notes = name, decimal, notes
        self.counted = CountedNotes()
        """Notes of batches of numbers."""
        self.counts = pa.table(
            {"text": pa.array([], pa.large_string()), "rows": pa.array([], pa.int64())}
        )
        """Distinct texts and the rows of each."""
        self.is_plain = decimal != "comma"
        """Whether all texts so far are numbers as programs write them."""
        self.is_cut = False
        """Whether `counts` holds but some of the texts."""
        self.numbers: pa.ChunkedArray | None = None
        """Of each text of `counts`; known from `decide` on."""

    def survey(self, column: pa.Array) -> None:
        """Adds a batch to what the decision is made by."""
        if _is_numeric(column.type):
            self._read_numbers(column, self.counted)
            return
        texts = first_text(pa.chunked_array([column]), self.name).drop_null()
        if self.is_plain:
            try:
                texts.cast(pa.float64())
            except pa.ArrowInvalid:
                self.is_plain = False
        if self.is_cut and self.is_plain:
            return
        if self.is_cut or len(self.counts) > MOST_TEXTS:
            if not self.is_plain:
                raise VitrineError(
                    f"the column {self.name} holds more than {MOST_TEXTS:,} different texts that "
                    "are not all plain numbers; write numbers, or set roles: {rating: null}."
                )
            self.is_cut = True
            self.counts = self.counts.slice(0, SAMPLED).combine_chunks()
            return
        found = pa.table({"text": texts, "rows": pa.nulls(len(texts), pa.int64()).fill_null(1)})
        both = pa.concat_tables([self.counts, found])
        united = both.group_by("text").aggregate([("rows", "sum")])
        self.counts = united.select(["text", "rows_sum"]).rename_columns(["text", "rows"])

    def decide(self) -> None:
        """Decides how all batches are read. Raises VitrineError as `read_numbers`."""
        self.counted.add_to(self.notes)
        if len(self.counts):
            rows = self.counts["rows"].to_numpy().astype(np.int64)
            self.numbers = self._read_numbers(self.counts["text"], self.notes, counts=rows)

    def read(self, column: pa.Array) -> pa.Array:
        """A batch as float64."""
        if _is_numeric(column.type):
            return self._read_numbers(column, Notes()).combine_chunks()
        texts = first_text(pa.chunked_array([column]), self.name)
        if self.numbers is None:
            return pa.nulls(len(texts), pa.float64())
        if self.is_plain:
            values = texts.cast(pa.float64())
            values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
            return values.combine_chunks()
        places = pc.index_in(texts, value_set=self.counts["text"])
        return self.numbers.take(places).combine_chunks()

    def _read_numbers(self, column: Any, notes: Notes, **how: Any) -> pa.ChunkedArray:
        given = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        return read_numbers(
            given, self.name, "interactions", notes, decimal=self.decimal, rating=True, **how
        )


def _is_numeric(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(test(kind) for test in tests)
