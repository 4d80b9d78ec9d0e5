"""Reads ids as text, refuses those that another program rounded, and compares those of two tables."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.columns import as_text
from catalog.errors import VitrineError
from catalog.notes import Notes

EXACT = 2**53
"""Whole numbers from here on are rounded in floats."""
NO_ID = pa.array(["nan", "NaN", "None", "<NA>"], pa.large_string())
"""What pandas and Python write where an id is missing."""
ROUNDED = r"^-?\d(?:[.,]\d+)?[eE]\+\d{1,3}$"
"""A spreadsheet's form of a long number: 7.65612E+16."""
DECIMAL = r"^(-?\d+)\.0+$"


def read_ids(column: pa.ChunkedArray, name: str, table: str, notes: Notes) -> pa.ChunkedArray:
    """The column as large_string without blanks at the ends; null where there is no id.

    Raises VitrineError for ids that were rounded, by a float or by a spreadsheet.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_floating(column.type):
        column = _refuse_rounded_floats(column, name, table)
    if not is_text(column):
        return as_text(column, name)
    given = column.cast(pa.large_string())
    ids = as_text(given, name)
    distinct = pc.unique(ids)
    rounded = pc.match_substring_regex(distinct, ROUNDED)
    if pc.any(rounded).as_py():
        first = distinct.filter(rounded)[0].as_py()
        raise VitrineError(
            f"the column {name} of {table} holds the id {first}, which a spreadsheet rounded, so "
            "that different ids are the same; export the ids as text."
        )
    if pc.any(pc.is_in(distinct, value_set=NO_ID)).as_py():
        ids = pc.if_else(pc.is_in(ids, value_set=NO_ID), pa.scalar(None, ids.type), ids)
    _note_merged(given, ids, name, table, notes)
    return ids


def is_text(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def note_without_id(ids: pa.ChunkedArray, role: str, where: str, notes: Notes) -> None:
    """Notes how many rows have no id; VitrineError where none has one."""
    if not ids.null_count:
        return
    if ids.null_count == len(ids):
        raise VitrineError(
            f"no row of {where} has any {role}; name the column that holds it with roles: "
            f"{{{role}: <column>}}."
        )
    first = pc.index(pc.is_null(ids), True).as_py() + 1
    notes.add(
        where,
        f"{ids.null_count} of {len(ids)} rows have no {role} and are left out (the first is row "
        f"{first})",
        "dropped",
        count=ids.null_count,
        remedy="complete them if they are needed",
    )


def drop_without_id(
    table: pa.Table, ids: pa.ChunkedArray, role: str, where: str, notes: Notes
) -> tuple[pa.Table, pa.ChunkedArray]:
    """The rows with an id, and their ids; what is dropped is noted.

    Raises VitrineError where no row has one.
    """
    note_without_id(ids, role, where, notes)
    if not ids.null_count:
        return table, ids
    given = pc.is_valid(ids)
    return table.filter(given), ids.filter(given)


def align_ids(
    ids: pa.ChunkedArray, item_ids: pa.ChunkedArray, notes: Notes
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The ids of interactions and of items, without the ".0" of one of them if they match only so."""
    if pc.any(pc.is_in(ids.slice(0, 1000), value_set=item_ids)).as_py():
        return ids, item_ids
    distinct = pc.unique(ids)
    if pc.any(pc.is_in(distinct, value_set=item_ids)).as_py():
        return ids, item_ids
    for side, table in ((distinct, "interactions"), (item_ids, "items")):
        if not pc.all(pc.match_substring_regex(side, DECIMAL)).as_py():
            continue
        other = item_ids if table == "interactions" else distinct
        if not pc.any(pc.is_in(_without_decimal(side), value_set=other)).as_py():
            continue
        notes.add(
            f"{table}: item_id",
            "ids end in .0, those of the other table do not; they are joined without it",
            examples=side[:3].to_pylist(),
            remedy="write ids alike in both tables if that is wrong",
        )
        if table == "interactions":
            return _without_decimal(ids), item_ids
        return ids, _without_decimal(item_ids)
    return ids, item_ids


def match_hint(unknown: pa.Array | pa.ChunkedArray, item_ids: pa.ChunkedArray) -> str:
    """How many of the unknown ids (distinct) items would have if ids were written alike, or ""."""
    for how, form in (
        ("without leading zeros", lambda ids: _replace(ids, r"^0+(.)", r"\1")),
        ("without regard to upper and lower case", pc.utf8_lower),
        ("without .0 at the end", _without_decimal),
    ):
        share = pc.mean(pc.is_in(form(unknown), value_set=form(item_ids)).cast(pa.int8())).as_py()
        if share:
            return f"{share:.0%} of them would match {how}: write ids alike in both tables; "
    return ""


def _replace(ids: pa.ChunkedArray, pattern: str, by: str) -> pa.ChunkedArray:
    return pc.replace_substring_regex(ids, pattern=pattern, replacement=by)


def _without_decimal(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return _replace(ids, DECIMAL, r"\1")


def _refuse_rounded_floats(column: pa.ChunkedArray, name: str, table: str) -> pa.ChunkedArray:
    """The column with null in place of NaN."""
    values = column.cast(pa.float64())
    missing = pc.is_nan(values)
    if pc.any(missing).as_py():
        column = pc.if_else(missing, pa.scalar(None, column.type), column)
    exact = EXACT if pa.types.is_float64(column.type) else 2**24
    sizes = pc.abs(values.filter(pc.invert(missing)))
    largest = pc.max(sizes).as_py()
    if largest is not None and not (largest < exact and np.isfinite(largest)):
        raise VitrineError(
            f"the column {name} of {table} holds the id {largest:.0f} as a floating-point number, "
            f"and numbers from {exact} on are rounded in these, so that different ids are the "
            "same; export the ids as text."
        )
    return column


def _note_merged(
    given: pa.ChunkedArray, ids: pa.ChunkedArray, name: str, table: str, notes: Notes
) -> None:
    trimmed = pc.and_(pc.not_equal(given, ids), pc.is_valid(ids))
    if not pc.any(trimmed).as_py():
        return
    before = pc.unique(given.filter(pc.is_valid(ids)))
    merged = len(before) - len(pc.unique(ids.drop_null()))
    if merged:
        notes.add(
            f"{table}: {name}",
            f"blanks at the ends of ids are removed, so that {merged} ids are the same as another",
            count=pc.sum(trimmed).as_py(),
            examples=pc.unique(given.filter(trimmed))[:3].to_pylist(),
        )
