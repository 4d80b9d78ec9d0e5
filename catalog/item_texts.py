"""Reads texts from Arrow columns, and joins an item's text columns into the one text that models read."""

from collections.abc import Sequence
from typing import overload

import pyarrow as pa

from catalog.columns import cut_title
from catalog.memory import release_buffers


class ItemTexts:
    """One text for each item: the columns joined by ". ", None where all are empty.

    The first of several columns is the title; the part beyond `columns.TITLE` letters comes last.
    """

    def __init__(self, columns: list[pa.ChunkedArray]) -> None:
        self.columns = columns

    def __call__(self, item: int) -> str | None:
        texts = [column[item].as_py() for column in self.columns]
        rest = ""
        if len(texts) > 1 and texts[0]:
            texts[0], rest = cut_title(texts[0])
        return f"{'. '.join(text for text in texts if text)} {rest}".strip() or None

    def release(self) -> None:
        """Lets go of memory that only mirrors the files."""
        for column in self.columns:
            release_buffers(*column.chunks)


class TextColumn(Sequence[str | None]):
    """A memory-mapped column of texts, each read on access: in a microsecond, where a row of a `Dataset`
    takes a hundred."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[str | None]: ...
    def __getitem__(self, index: int | slice) -> str | list[str | None] | None:
        if isinstance(index, slice):
            return self.column[index].to_pylist()
        return self.column[int(index)].as_py()

    def __len__(self) -> int:
        return len(self.column)
