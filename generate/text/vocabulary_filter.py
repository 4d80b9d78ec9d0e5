"""Allowed vocabulary: removes words from generated texts that only one or two sources have used.

A defence against prompt injection and memorization: a word that only one seller or reviewer has written (a
planted code word, a name, a telephone number) is removed, unless it is in the text of the item that the
generated text is about. Allowed words occur in the texts of several items or the reviews of several users.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from catalog.catalog import Catalog
from catalog.progress import track
from generate.next_items import NextItemPairs
from generate.text.clean import clean_text
from generate.text.scripts import UNSPACED
from generate.text.tokenizer import Tokenizer, plain_ids

MIN_SOURCES = 3
"""Items, or users, that must have used a word."""
MAX_REVIEWS = 200_000
"""Reviews that are read for the vocabulary, at most, evenly spaced."""
MAX_COMMON_TOKENS = 2
"""A word of at most this many tokens counts as common in the vocabulary of a pretrained model."""
WORD = re.compile(rf"[{UNSPACED}]|\d+(?:[.,]\d+)+[^\W_{UNSPACED}]*|[^\W_{UNSPACED}]+")
"""Letters and digits together, a number with its separators; in scripts without spaces, each character."""
_SPACED = rf"(?:\d+(?:[.,]\d+)+[^\W_{UNSPACED}]*|[^\W_{UNSPACED}]+)"
UNIT = re.compile(rf"[{UNSPACED}]|[$€£¥₹#@+]*{_SPACED}(?:['’.@&/+:_-]{_SPACED})*(?:\s?[%‰°€£¥])?")
"""Units that are kept or removed whole: words joined by punctuation, with currency and unit signs."""


class VocabularyFilter:
    """Keeps words of the allowed vocabulary, and those of the item that a text is about."""

    def __init__(self, words: Iterable[str], pretrained: Tokenizer | None = None) -> None:
        """`pretrained`: the tokenizer of a pretrained model, whose common words are allowed too."""
        self.words = frozenset(words)
        self.pretrained = pretrained
        self._common = lru_cache(maxsize=65_536)(self._is_common)

    def filter(self, text: str, item_text: str) -> str:
        """The text without words that are not allowed; words of `item_text` are.

        A number is kept or removed whole, with its currency, and so are words joined by punctuation: no
        part of "$49.90" or of an address is left.
        """
        item_words = frozenset(word.casefold() for word in WORD.findall(item_text))

        def whole_or_nothing(unit: re.Match[str]) -> str:
            words = WORD.findall(unit.group())
            return unit.group() if all(self._is_allowed(word, item_words) for word in words) else ""

        filtered = UNIT.sub(whole_or_nothing, text)
        return text if filtered == text else " ".join(filtered.split())

    def _is_allowed(self, word: str, item_words: frozenset[str]) -> bool:
        folded = word.casefold()
        return folded in item_words or folded in self.words or self._common(word)

    def _is_common(self, word: str) -> bool:
        if self.pretrained is None:
            return False
        (ids,) = plain_ids(self.pretrained, [f" {word}"])
        return len(ids) <= MAX_COMMON_TOKENS


def learn_allowed_vocabulary(catalog: Catalog, pairs: NextItemPairs) -> list[str]:
    """Words that occur in the texts of MIN_SOURCES items or in the training reviews of as many users."""
    sources: Counter[str] = Counter()
    texts = catalog.texts()
    for item in track(range(catalog.num_items), "Reading words of items"):
        sources.update(words_of(texts(item)))
    reviews = catalog.interactions.reviews
    if reviews is not None:
        stride = max(1, -(-len(pairs) // MAX_REVIEWS))
        users, positions = pairs.users[::stride], pairs.positions[::stride]
        rows = np.asarray(catalog.interactions.offsets)[users] + positions
        words_of_user: set[str] = set()
        last = -1
        for user, row in track(
            list(zip(users.tolist(), rows.tolist(), strict=True)), "Reading reviews"
        ):
            if user != last:
                sources.update(words_of_user)
                words_of_user, last = set(), user
            words_of_user |= words_of(reviews[row])
        sources.update(words_of_user)
    return sorted(word for word, count in sources.items() if count >= MIN_SOURCES)


def words_of(text: str | None) -> set[str]:
    """Distinct words of a text, case-folded."""
    return {word.casefold() for word in WORD.findall(clean_text(text or ""))}
