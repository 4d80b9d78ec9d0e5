"""Joins an item's text columns into the one text that models read."""

import pyarrow as pa

from catalog.columns import cut_title
from catalog.memory import release_buffers


class ItemTexts:
    """One text for each item: the columns' words, joined by ". ", None where all are empty. The first of
    several columns is a title, of which what is too long for one comes last."""

    def __init__(self, columns: list[pa.ChunkedArray]) -> None:
        self.columns = columns

    def __call__(self, item: int) -> str | None:
        words = [column[item].as_py() for column in self.columns]
        rest = ""
        if len(words) > 1 and words[0]:
            words[0], rest = cut_title(words[0])
        return f"{'. '.join(word for word in words if word)} {rest}".strip() or None

    def release(self) -> None:
        """Lets go of memory that only mirrors the files."""
        for column in self.columns:
            for chunk in column.chunks:
                release_buffers(chunk)
