"""Converts columns of any Arrow type to the types of a catalog: text, ids, times, numbers."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import VitrineError

DATE_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y/%m/%d",
    "%m/%d/%Y",
    "%d-%b-%Y",
)
"""Date formats that are tried in this order for a text column that is neither ISO 8601 nor numeric."""
MICROSECONDS = 1_000_000
TITLE = 80
"""Maximum number of letters of a title."""


def cut_title(text: str) -> tuple[str, str]:
    """Splits a text after at most TITLE letters, at the end of a word if possible: the title and the rest."""
    if len(text) <= TITLE:
        return text, ""
    end = text.rfind(" ", 0, TITLE + 1)
    end = end if end > 0 else TITLE
    return text[:end].rstrip(), text[end:].lstrip()


def as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as text, with blank → null; a list's elements are joined by ", ".

    Raises VitrineError for a column (struct, binary…) that has no plain text form.
    """
    kind = column.type
    try:
        if pa.types.is_dictionary(kind):
            return as_text(column.cast(kind.value_type), name)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            values = pa.chunked_array(
                [_join(chunk) for chunk in column.chunks], type=pa.large_string()
            )
            return _without_blanks(values)
        if pa.types.is_floating(kind) and _is_whole(column):
            column = column.cast(pa.int64())
        return _without_blanks(_decodable(column.cast(pa.large_string())))
    except pa.ArrowException as error:
        raise VitrineError(
            f"the column {name} holds {kind}, which has no text form; choose another with roles."
        ) from error


def _decodable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replaces invalid UTF-8, such as lone surrogates, which some writers produce, by U+FFFD."""
    try:
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary()).to_pylist()
        texts = [None if value is None else value.decode("utf8", "replace") for value in raw]
        return pa.chunked_array([pa.array(texts, pa.large_string())])


def first_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as text; of a list the first element."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.list_value_length(column)
        lists = pc.if_else(pc.greater(lengths, 0), column, pa.scalar(None, kind))
        column = pc.list_element(lists, 0)
    return as_text(column, name)


def as_numbers(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as float64; VitrineError names the first value that is not a number."""
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(pa.float64())
    except pa.ArrowException as error:
        raise VitrineError(f"the column {name} is not numeric: {_reason(error)}") from error


def as_times(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as int64: whole numbers unchanged, dates in seconds since 1970.

    If seconds would lose a fraction, the whole column is in microseconds. Raises VitrineError for
    missing values and for text that is not a date.
    """
    if column.null_count:
        raise VitrineError(
            f"the column {name} lacks {column.null_count} times; fill them in, or set "
            "roles: {time: null} to go by the file's order."
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parse_times(column, name)
    kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64())
        if _is_whole(numbers):
            return numbers.cast(pa.int64())
        return pc.round(pc.multiply(numbers, MICROSECONDS)).cast(pa.int64())
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif not pa.types.is_timestamp(kind):
        raise VitrineError(
            f"the column {name} holds {kind}, which is no time; choose another with roles."
        )
    ticks = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    seconds = pc.floor(pc.divide(ticks.cast(pa.float64()), MICROSECONDS)).cast(pa.int64())
    lossless = pc.all(pc.equal(pc.multiply(seconds, MICROSECONDS), ticks)).as_py()
    return seconds if lossless is not False else ticks


def _parse_times(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    column = pc.utf8_trim_whitespace(column)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    try:
        return column.cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowInvalid:
        pass
    # Tried on one row first, so that a wrong format fails at once.
    for pattern in DATE_FORMATS:
        try:
            pc.strptime(column[:1], format=pattern, unit="us")
            return pc.strptime(column, format=pattern, unit="us")
        except pa.ArrowInvalid:
            continue
    raise VitrineError(
        f"the column {name} (first value {column[0].as_py()!r}) holds neither numbers nor dates "
        "such as 2020-09-21 throughout; choose another with roles, or rewrite it."
    )


def _join(chunk: pa.Array) -> pa.Array:
    values = chunk.cast(pa.list_(pa.large_string()))
    # A null inside a list would make the whole text null.
    flat = pc.fill_null(values.flatten(), "")
    lengths = pc.fill_null(pc.list_value_length(values), 0)
    offsets = pa.concat_arrays(
        [pa.array([0], pa.int64()), pc.cumulative_sum(lengths.cast(pa.int64()))]
    )
    lists = pa.ListArray.from_arrays(offsets.cast(pa.int32()), flat)
    return pc.binary_join(lists, pa.scalar(", ", pa.large_string()))


def _without_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)


def _is_whole(column: pa.ChunkedArray) -> bool:
    whole = pc.all(pc.equal(column, pc.floor(column))).as_py()
    return whole is not False


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
