"""Builds the conditions of a text generator: user state, item vector, history and earlier reviews."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from catalog.catalog import Catalog
from generate.conditioning import Ranker
from generate.requests import GenerationRequest, HistoryPrefix, stack_item_vectors, stack_states
from generate.text.clean import short_title

MAX_STYLE_REVIEWS = 8
"""Newest reviews that user style tokens are computed from, at most."""
MAX_STYLE_INTERACTIONS = 100
"""Newest interactions that are searched for these reviews, at most."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch of texts, a row for each; None: the condition is missing for all."""

    user_states: Tensor | None = None
    """float (texts, width); a row of zeros: unconditional."""
    item_vectors: Tensor | None = None
    """float (texts, width); a row of zeros: no item is given."""
    histories: Sequence[str] | None = None
    """Each user's history as text, for the prompt; empty: no history."""
    style_texts: Sequence[str] | None = None
    """Each user's earlier reviews, joined, for the user style tokens; empty: none."""
    item_texts: Sequence[str] | None = None
    """All columns of each item as text: words that the vocabulary filter lets through."""

    def take(self, indices: Sequence[int]) -> "Conditions":
        return Conditions(
            None if self.user_states is None else self.user_states[indices],
            None if self.item_vectors is None else self.item_vectors[indices],
            _take(self.histories, indices),
            _take(self.style_texts, indices),
            _take(self.item_texts, indices),
        )


def _take(texts: Sequence[str] | None, indices: Sequence[int]) -> list[str] | None:
    return None if texts is None else [texts[index] for index in indices]


class Prompts:
    """Builds conditions from requests, with the texts of one catalog."""

    def __init__(self, catalog: Catalog, ranker: Ranker, num_history_items: int = 0) -> None:
        """`num_history_items` titles of each history go into the prompt; with 0 none."""
        self.catalog = catalog
        self.ranker = ranker
        self.num_history_items = num_history_items
        self._item_text = lru_cache(maxsize=65_536)(self._read_item_text)
        self._title = lru_cache(maxsize=65_536)(self._read_title)

    def make(self, requests: Sequence[GenerationRequest]) -> Conditions:
        """Conditions of requests, a row for each."""
        histories = None
        if self.num_history_items:
            histories = [self.history_text(request.prefix, request.item) for request in requests]
        return Conditions(
            stack_states(requests),
            stack_item_vectors(requests, self.ranker),
            histories,
            [self.style_text(request.prefix) for request in requests],
            ["" if one.item is None else self._item_text(int(one.item)) for one in requests],
        )

    def style_text(self, prefix: HistoryPrefix) -> str:
        """The user's newest reviews, oldest first."""
        texts = self.catalog.interactions.reviews
        if texts is None or prefix.user is None:
            return ""
        end = int(self.catalog.interactions.offsets[prefix.user]) + prefix.length
        reviews: list[str] = []
        for row in range(end - 1, end - 1 - min(prefix.length, MAX_STYLE_INTERACTIONS), -1):
            if len(reviews) == MAX_STYLE_REVIEWS:
                break
            if text := texts[row]:
                reviews.append(text)
        return " ".join(reversed(reviews))

    def history_text(self, prefix: HistoryPrefix, item: int | None) -> str:
        """Titles of the items of a history that are most similar to `item` (the newest ones where it is
        None), oldest first; empty for an empty history."""
        history = prefix.items(self.catalog)
        if not len(history):
            return ""
        chosen = np.arange(len(history))[-self.num_history_items :]
        if item is not None and len(history) > self.num_history_items:
            vectors = np.asarray(self.ranker.item_vectors[history])
            similarity = vectors @ np.asarray(self.ranker.item_vectors[item])
            most_similar = np.argsort(-similarity, kind="stable")[: self.num_history_items]
            chosen = np.sort(most_similar)
        titles = [title for row in history[chosen] if (title := self._title(int(row)))]
        return f"took: {'; '.join(titles)}" if titles else ""

    def _read_item_text(self, item: int) -> str:
        """All columns of the item, joined."""
        (row,) = self.catalog.columns.slice(item, 1).to_pylist()
        (roles,) = self.catalog.items.data.slice(item, 1).to_pylist()
        values = {**row, **roles}.values()
        return " ".join(str(value) for value in values if value is not None)

    def _read_title(self, item: int) -> str:
        """The item's title, else the beginning of its text, cleaned by `short_title`."""
        text = None
        if self.catalog.has_column("title"):
            text = self.catalog.column("title")[item].as_py()
        return short_title(text or self.catalog.item_text(item) or "")
