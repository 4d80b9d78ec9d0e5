"""What a text is written from: whom it is for, and what it is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from generate.conditioning import Ranker
from generate.text.clean import short_title

Indices = NDArray[np.integer]
SAID = 8
"""Reviews by which a person's voice is known, the newest."""
LOOKED_AT = 100
"""Interactions among which they are sought, the newest."""


@dataclass(frozen=True)
class Conditions:
    """A row for each text; None: of no text."""

    user_states: Tensor | None = None
    """float (texts, width); a row of zeros: for nobody in particular."""
    item_vectors: Tensor | None = None
    """float (texts, width); a row of zeros: about nothing in particular."""
    histories: Sequence[str] | None = None
    """What each person took before, in words; an empty one is not told."""
    voices: Sequence[str] | None = None
    """What each person said before, one after another; an empty one: nothing."""
    own: Sequence[str] | None = None
    """What the catalog says of each item, not told, but free to be said."""

    def take(self, places: Sequence[int]) -> "Conditions":
        return Conditions(
            None if self.user_states is None else self.user_states[places],
            None if self.item_vectors is None else self.item_vectors[places],
            None if self.histories is None else [self.histories[place] for place in places],
            None if self.voices is None else [self.voices[place] for place in places],
            None if self.own is None else [self.own[place] for place in places],
        )


@dataclass(frozen=True)
class Past:
    """What a person did before."""

    user: int | None = None
    """Row of the person; None: nobody in particular."""
    length: int = 0
    """So many interactions of theirs, the first."""


class Prompts:
    """Makes conditions of people and items of one shop."""

    def __init__(self, catalog: Catalog, ranker: Ranker, history_items: int = 0) -> None:
        """Of each history `history_items` are told in words; with 0 none."""
        self.catalog = catalog
        self.ranker = ranker
        self.history_items = history_items
        self._own = lru_cache(maxsize=65_536)(self._read_own)
        self._title = lru_cache(maxsize=65_536)(self._read_title)

    def make(
        self, user_states: Tensor, pasts: Sequence[Past], items: Sequence[int] | None
    ) -> Conditions:
        """For people of these states (texts, width) and pasts, about these items (rows)."""
        vectors = words = own = None
        if items is not None:
            vectors = torch.from_numpy(np.array(self.ranker.item_vectors[list(items)]))
            own = [self._own(int(item)) for item in items]
        if self.history_items:
            asked = [None] * len(pasts) if items is None else items
            words = [self.told(past, item) for past, item in zip(pasts, asked, strict=True)]
        return Conditions(user_states, vectors, words, [self.said(past) for past in pasts], own)

    def history(self, past: Past) -> Indices:
        """Rows of items, oldest first."""
        if past.user is None:
            return np.empty(0, dtype=np.int32)
        return self.catalog.interactions.history(past.user)[: past.length]

    def said(self, past: Past) -> str:
        """The newest reviews of the person, oldest first."""
        texts = self.catalog.interactions.reviews
        if texts is None or past.user is None:
            return ""
        end = int(self.catalog.interactions.offsets[past.user]) + past.length
        found: list[str] = []
        for row in range(end - 1, end - 1 - min(past.length, LOOKED_AT), -1):
            if len(found) == SAID:
                break
            if text := texts[row]:
                found.append(text)
        return " ".join(reversed(found))

    def told(self, past: Past, item: int | None) -> str:
        """Titles of those items of a history that are most like `item`, or of the newest without
        one, oldest first; empty for an empty history."""
        history = self.history(past)
        if not len(history):
            return ""
        chosen = np.arange(len(history))[-self.history_items :]
        if item is not None and len(history) > self.history_items:
            vectors = np.asarray(self.ranker.item_vectors[history])
            likeness = vectors @ np.asarray(self.ranker.item_vectors[item])
            chosen = np.sort(np.argsort(-likeness, kind="stable")[: self.history_items])
        titles = [title for row in history[chosen] if (title := self._title(int(row)))]
        return f"took: {'; '.join(titles)}" if titles else ""

    def _read_own(self, item: int) -> str:
        """All its columns, as words."""
        (row,) = self.catalog.columns.slice(item, 1).to_pylist()
        (roles,) = self.catalog.items.data.slice(item, 1).to_pylist()
        said = {**row, **roles}.values()
        return " ".join(str(value) for value in said if value is not None)

    def _read_title(self, item: int) -> str:
        """The title, or the beginning of the text, as data: see `short_title`."""
        if self.catalog.has_column("title"):
            text = self.catalog.column("title")[item].as_py()
        else:
            text = None
        return short_title(text or self.catalog.item_text(item) or "")
