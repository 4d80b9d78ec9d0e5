"""Converts columns of any Arrow type to text; catalog/values reads times, numbers and ids."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import VitrineError

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
        return _without_blanks(decodable(column.cast(pa.large_string())))
    except pa.ArrowException as error:
        raise VitrineError(
            f"the column {name} holds {kind}, which has no text form; choose another with roles."
        ) from error


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: its only chunk, which `combine_chunks` would copy, or all of them joined."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def decodable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A text column, with invalid UTF-8, such as lone surrogates, which some writers produce, by U+FFFD."""
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
