"""Builds the conditions of a text generator: user state, item vector, facts in words, earlier reviews."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.conditioning import Ranker
from generate.requests import GenerationRequest, HistoryPrefix, stack_item_vectors, stack_states
from generate.text.facts import MAX_QUOTED_REVIEWS, MAX_REVIEW_LETTERS, Facts, as_lines, cut
from generate.text.keywords import KeywordIndex
from generate.text.sequences import PromptKind, cleaned_lines
from generate.text.settings import TextGeneratorSettings
from generate.text.task_texts import TaskTexts
from generate.text.tasks import Task

MAX_EXAMPLE_LETTERS = 90
"""Letters of an item's text that is an example in a prompt, at most."""


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
        num_likely_items: int = 0,
    ) -> None:
        """`kind`: see `generate.text.sequences`. `num_history_items` items of each history go into the
        prompt, and without an item `num_likely_items` that the recommender ranks first."""
        self.catalog = catalog
        self.ranker = ranker
        self.kind = kind
        self.num_history_items = num_history_items
        self.num_likely_items = num_likely_items
        self.facts = Facts(catalog, ranker)
        self._texts_of = lru_cache(maxsize=None)(self._read_texts_of)

    @property
    def in_words(self) -> bool:
        """Whether prompts say anything in words."""
        return self.kind == "facts" or self.num_history_items > 0

    def make(
        self,
        requests: Sequence[GenerationRequest],
        task: Task | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> Conditions:
        """Conditions of requests for a task, a row for each; without the roles in `hidden` among the item's
        facts."""
        rows = [None if request.item is None else int(request.item) for request in requests]
        pairs = list(zip((request.prefix for request in requests), rows, strict=True))
        return Conditions(
            stack_states(requests),
            stack_item_vectors(requests, self.ranker),
            [self.data(*pair, task, hidden) for pair in pairs] if self.in_words else None,
            [self.style_text(request.prefix) for request in requests],
            ["" if item is None else self.facts.all_text(item) for item in rows],
        )

    def data(
        self,
        prefix: HistoryPrefix,
        item: int | None,
        task: Task | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> str:
        """What a prompt says of an item and a user, in lines; either may be missing.

        Beside an item, the history is a list of titles. Without one the prompt shows examples of the `task`:
        the beginnings of the texts that the catalog has for the newest items of the history, and for the
        likely next ones (an item without such a text is named by its title).
        """
        chosen = self.facts.history_items(prefix, item, self.num_history_items)
        titles = [title for row in chosen if (title := self.facts.title(row))]
        if self.kind == "none":
            return f"took: {'; '.join(titles)}" if titles else ""
        reviews = self.facts.reviews(prefix, MAX_QUOTED_REVIEWS)
        lines = [] if item is None else ["Item", *self.facts.item_lines(item, hidden)]
        if item is None and task is not None:
            lines += as_lines("Chosen by the customer before", self._examples(chosen, task))
            likely = self._examples(self._likely(prefix), task)
            lines += as_lines("Likely to be chosen next", likely)
        else:
            lines += as_lines("Chosen by the customer before", titles)
        quoted = [cut(review, MAX_REVIEW_LETTERS) for review in reviews]
        return cleaned_lines([*lines, *as_lines("Reviews by the customer", quoted)])

    def _likely(self, prefix: HistoryPrefix) -> list[int]:
        """Rows of the items that the recommender ranks first after a history, the best first."""
        history = prefix.items(self.catalog)
        if not self.num_likely_items or not len(history):
            return []
        return [item for item, _ in self.ranker.rank(history, self.num_likely_items)]

    def _examples(self, items: Sequence[int], task: Task) -> list[str]:
        texts = self._texts_of(task)
        found = [
            cut((texts and texts.item_text(task, item)) or "", MAX_EXAMPLE_LETTERS)
            or self.facts.title(item)
            for item in items
        ]
        return [one for one in found if one]

    def _read_texts_of(self, task: Task) -> TaskTexts | None:
        """The texts of a task; None where another catalog lacks a field that it reads."""
        try:
            return TaskTexts(self.catalog, [task], self._keyword_index)
        except VitrineError:
            return None

    @cached_property
    def _keyword_index(self) -> KeywordIndex:
        return KeywordIndex(self.catalog)

    def style_text(self, prefix: HistoryPrefix) -> str:
        """The user's newest reviews, oldest first, for the user style tokens."""
        return " ".join(reversed(self.facts.reviews(prefix)))


def prompts_of(settings: TextGeneratorSettings, catalog: Catalog, ranker: Ranker) -> Prompts:
    """The prompts of a generator with these settings."""
    return Prompts(
        catalog, ranker, settings.prompt, settings.num_history_items, settings.num_likely_items
    )
