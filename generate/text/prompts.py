"""Builds the conditions of a text generator: user state, item vector, facts in words, earlier reviews."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from catalog.catalog import Catalog
from generate.conditioning import Ranker
from generate.requests import GenerationRequest, HistoryPrefix, stack_item_vectors, stack_states
from generate.text.facts import MAX_QUOTED_REVIEWS, MAX_REVIEW_LETTERS, Facts, as_lines, cut
from generate.text.sequences import PromptKind, cleaned_lines


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch of texts, a row for each; None: the condition is missing for all."""

    user_states: Tensor | None = None
    """float (texts, width); a row of zeros: unconditional."""
    item_vectors: Tensor | None = None
    """float (texts, width); a row of zeros: no item is given."""
    data: Sequence[str] | None = None
    """What each prompt says in words of item, history and earlier reviews, in lines; empty: nothing."""
    style_texts: Sequence[str] | None = None
    """Each user's earlier reviews, joined, for the user style tokens; empty: none."""
    item_texts: Sequence[str] | None = None
    """All columns of each item as text: words that the vocabulary filter lets through."""

    def take(self, indices: Sequence[int]) -> "Conditions":
        return Conditions(
            None if self.user_states is None else self.user_states[indices],
            None if self.item_vectors is None else self.item_vectors[indices],
            _take(self.data, indices),
            _take(self.style_texts, indices),
            _take(self.item_texts, indices),
        )


def _take(texts: Sequence[str] | None, indices: Sequence[int]) -> list[str] | None:
    return None if texts is None else [texts[index] for index in indices]


class Prompts:
    """Builds conditions from requests, with the texts of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        ranker: Ranker,
        kind: PromptKind = "none",
        num_history_items: int = 0,
    ) -> None:
        """`kind`: see `generate.text.sequences`. `num_history_items` titles of each history go into the
        prompt; with 0 none."""
        self.catalog = catalog
        self.ranker = ranker
        self.kind = kind
        self.num_history_items = num_history_items
        self.facts = Facts(catalog, ranker)

    @property
    def in_words(self) -> bool:
        """Whether prompts say anything in words."""
        return self.kind == "facts" or self.num_history_items > 0

    def make(
        self, requests: Sequence[GenerationRequest], hidden: frozenset[str] = frozenset()
    ) -> Conditions:
        """Conditions of requests, a row for each; without the roles in `hidden` among the item's facts."""
        rows = [None if request.item is None else int(request.item) for request in requests]
        pairs = list(zip((request.prefix for request in requests), rows, strict=True))
        return Conditions(
            stack_states(requests),
            stack_item_vectors(requests, self.ranker),
            [self.data(*pair, hidden) for pair in pairs] if self.in_words else None,
            [self.style_text(request.prefix) for request in requests],
            ["" if item is None else self.facts.all_text(item) for item in rows],
        )

    def data(
        self, prefix: HistoryPrefix, item: int | None, hidden: frozenset[str] = frozenset()
    ) -> str:
        """What a prompt says of an item and a user, in lines; either may be missing."""
        titles = self.facts.history_titles(prefix, item, self.num_history_items)
        if self.kind == "none":
            return f"took: {'; '.join(titles)}" if titles else ""
        reviews = self.facts.reviews(prefix, MAX_QUOTED_REVIEWS)
        lines = [] if item is None else ["Item", *self.facts.item_lines(item, hidden)]
        lines += as_lines("Chosen by the customer before", titles)
        quoted = [cut(review, MAX_REVIEW_LETTERS) for review in reviews]
        return cleaned_lines([*lines, *as_lines("Reviews by the customer", quoted)])

    def style_text(self, prefix: HistoryPrefix) -> str:
        """The user's newest reviews, oldest first, for the user style tokens."""
        return " ".join(reversed(self.facts.reviews(prefix)))
