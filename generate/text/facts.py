"""What a catalog says in words of an item, a history and earlier reviews: the data of a prompt."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa

from catalog.catalog import Catalog
from catalog.columns import as_text
from catalog.errors import VitrineError
from generate.attributes import attribute_columns
from generate.conditioning import Ranker
from generate.requests import HistoryPrefix
from generate.text.clean import clean_text, short_title

MAX_STYLE_REVIEWS = 8
"""Newest reviews of a user that are read, at most."""
MAX_STYLE_INTERACTIONS = 100
"""Newest interactions that are searched for these reviews, at most."""
MAX_TEXT_LETTERS = 600
"""Letters of an item's text in a prompt, at most."""
MAX_VALUE_LETTERS = 120
"""Letters of an attribute's value in a prompt, at most."""
MAX_QUOTED_REVIEWS, MAX_REVIEW_LETTERS = 3, 240
"""Newest reviews of a user in a prompt, and letters of each, at most."""


class Facts:
    """Texts of one catalog, read for prompts; every line is cleaned (`generate.text.clean`)."""

    def __init__(self, catalog: Catalog, ranker: Ranker) -> None:
        self.catalog = catalog
        self.ranker = ranker
        self.title = lru_cache(maxsize=65_536)(self._read_title)
        self.all_text = lru_cache(maxsize=65_536)(self._read_all_text)

    def item_lines(self, item: int, hidden: frozenset[str] = frozenset()) -> list[str]:
        """`name: value` for the item's title, category, price, attributes and prose, without the roles and
        columns in `hidden` (title, text, detail_desc, …; see `_left_out`); a value that repeats the one of
        another line is left out."""
        lines: dict[str, str] = {}
        left_out = self._left_out(hidden)
        for name, (_, read) in self._readers.items():
            value = "" if name in left_out else read(item)
            if value and value.lower() not in {known.lower() for known in lines.values()}:
                lines[name] = value
        return [f"{clean_text(name.replace('_', ' '))}: {value}" for name, value in lines.items()]

    def _left_out(self, hidden: frozenset[str]) -> set[str]:
        """The lines of these roles and columns; of several, the prose alone: an item's kind or colour in a
        text has to be the one that the prompt names."""
        of_columns = {self._role_of[name] for name in hidden if name in self._role_of}
        named = hidden | (of_columns - {"text"})
        found = {name for name, (role, _) in self._readers.items() if {name, role} & named}
        prose = {name for name in found if self._readers[name][0] == "text"}
        return prose or found

    def history_items(self, prefix: HistoryPrefix, item: int | None, at_most: int) -> list[int]:
        """Rows of the items of a history that are most similar to `item` (the newest ones where it is None),
        oldest first."""
        history = prefix.items(self.catalog)
        if not len(history) or not at_most:
            return []
        chosen = np.arange(len(history))[-at_most:]
        if item is not None and len(history) > at_most:
            vectors = np.asarray(self.ranker.item_vectors[history])
            similarity = vectors @ np.asarray(self.ranker.item_vectors[item])
            most_similar = np.argsort(-similarity, kind="stable")[:at_most]
            chosen = np.sort(most_similar)
        return history[chosen].tolist()

    def reviews(self, prefix: HistoryPrefix, at_most: int = MAX_STYLE_REVIEWS) -> list[str]:
        """The user's newest reviews within the prefix, newest first."""
        texts = self.catalog.interactions.reviews
        if texts is None or prefix.user is None:
            return []
        end = int(self.catalog.interactions.offsets[prefix.user]) + prefix.length
        reviews: list[str] = []
        for row in range(end - 1, end - 1 - min(prefix.length, MAX_STYLE_INTERACTIONS), -1):
            if len(reviews) == at_most:
                break
            if text := texts[row]:
                reviews.append(text)
        return reviews

    @cached_property
    def _role_of(self) -> dict[str, str]:
        """Column of the items table → its role; several columns may have the role text."""
        found: dict[str, str] = {}
        for role, columns in self.catalog.roles.get("items", {}).items():
            for column in columns if isinstance(columns, list | tuple) else [columns]:
                if isinstance(column, str):
                    found[column] = role
        return found

    @cached_property
    def _readers(self) -> dict[str, tuple[str, Callable[[int], str]]]:
        """Name of a line → its role, and the item's value; prose, whose role is text, comes last."""
        readers: dict[str, tuple[str, Callable[[int], str]]] = {"title": ("title", self.title)}
        if self.catalog.has_column("category"):
            readers["category"] = "category", self._reader("category", MAX_VALUE_LETTERS)
        if self.catalog.has_column("price"):
            readers["price"] = "price", self._price
        for name, column in attribute_columns(self.catalog):
            if self._role_of.get(name, "text") == "text":
                reader = _value_reader(column, MAX_VALUE_LETTERS)
                readers.setdefault(name, ("attribute", reader))
        prose = [name for name, role in self._role_of.items() if role == "text"]
        named = [name for name in prose if name in self.catalog.columns.column_names]
        for name in named or ["text"]:
            if name not in readers and self.catalog.has_column(name):
                readers[name] = "text", self._reader(name, MAX_TEXT_LETTERS)
        return readers

    def _reader(self, name: str, letters: int) -> Callable[[int], str]:
        try:
            return _value_reader(as_text(self.catalog.column(name), name), letters)
        except VitrineError:  # a column of another type than text
            return lambda item: ""

    def _price(self, item: int) -> str:
        price = self.catalog.column("price")[item].as_py()
        return "" if price is None or not np.isfinite(price) else f"{price:.2f}"

    def _read_all_text(self, item: int) -> str:
        """All columns of the item, joined; the price also with cents."""
        (row,) = self.catalog.columns.slice(item, 1).to_pylist()
        (roles,) = self.catalog.items.data.slice(item, 1).to_pylist()
        values = {**row, **roles}.values()
        written = [str(value) for value in values if value is not None]
        price = self._price(item) if self.catalog.has_column("price") else ""
        return " ".join([*written, *([price] if price else [])])

    def _read_title(self, item: int) -> str:
        """The item's title, else the beginning of its text, cleaned by `short_title`."""
        text = None
        if self.catalog.has_column("title"):
            text = self.catalog.column("title")[item].as_py()
        return short_title(text or self.catalog.item_text(item) or "")


def _value_reader(column: pa.ChunkedArray, letters: int) -> Callable[[int], str]:
    return lambda item: cut(column[item].as_py() or "", letters)


def cut(text: str, letters: int) -> str:
    """The cleaned text, cut after a whole word within `letters` letters."""
    cleaned = clean_text(text)
    if len(cleaned) <= letters:
        return cleaned
    shorter = cleaned[:letters]
    return shorter.rpartition(" ")[0] or shorter


def as_lines(title: str, entries: Sequence[str]) -> list[str]:
    """A heading and a line for each entry; nothing where there are none."""
    return [title, *(f"- {entry}" for entry in entries)] if entries else []
