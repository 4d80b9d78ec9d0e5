"""What a text is written from: whom it is for, and what it is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from generate.conditioning import Shop
from generate.text.clean import clean_text

Indices = NDArray[np.integer]
LONGEST = 80
"""Letters that are told of one item of a history, at most."""


@dataclass(frozen=True)
class Conditions:
    """A row for each text; None: of no text."""

    user_states: Tensor | None = None
    """float (texts, width); a row of zeros: for nobody in particular."""
    item_vectors: Tensor | None = None
    """float (texts, width); a row of zeros: about nothing in particular."""
    histories: Sequence[str] | None = None
    """What each person took before, in words; an empty one is not told."""

    def take(self, places: Sequence[int]) -> "Conditions":
        return Conditions(
            None if self.user_states is None else self.user_states[places],
            None if self.item_vectors is None else self.item_vectors[places],
            None if self.histories is None else [self.histories[place] for place in places],
        )


class Prompts:
    """Makes conditions of people and items of one shop."""

    def __init__(self, catalog: Catalog, shop: Shop, history_items: int = 0) -> None:
        """Of each history so many items are told in words; with 0 none."""
        self.catalog = catalog
        self.shop = shop
        self.history_items = history_items
        self._title = lru_cache(maxsize=65_536)(self._read_title)

    def make(
        self, user_states: Tensor, histories: Sequence[Indices], items: Sequence[int] | None
    ) -> Conditions:
        """For people of these states (texts, width) and histories (rows of items, oldest first),
        about these items (rows)."""
        vectors = words = None
        if items is not None:
            vectors = torch.from_numpy(np.array(self.shop.item_vectors[list(items)]))
        if self.history_items:
            asked = [None] * len(histories) if items is None else items
            words = [self.told(one, item) for one, item in zip(histories, asked, strict=True)]
        return Conditions(user_states, vectors, words)

    def told(self, history: Indices, item: int | None) -> str:
        """Titles of those items of a history that are most like `item`, or of the newest without
        one, oldest first; empty for an empty history."""
        if not len(history):
            return ""
        chosen = np.arange(len(history))[-self.history_items :]
        if item is not None and len(history) > self.history_items:
            vectors = np.asarray(self.shop.item_vectors[history])
            likeness = vectors @ np.asarray(self.shop.item_vectors[item])
            chosen = np.sort(np.argsort(-likeness, kind="stable")[: self.history_items])
        titles = [title for row in history[chosen] if (title := self._title(int(row)))]
        return f"took: {'; '.join(titles)}" if titles else ""

    def _read_title(self, item: int) -> str:
        """The title, or the beginning of the text, as data: see `clean_text`."""
        if self.catalog.has_column("title"):
            text = self.catalog.column("title")[item].as_py()
        else:
            text = None
        return clean_text(text or self.catalog.text_of(item) or "")[:LONGEST].strip()
