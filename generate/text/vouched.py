"""Words that no single voice can bring in.

What one seller or one reviewer alone has written (a code word they want said, a name, a telephone
number) does not come out of a generator, unless it is in the text of the very item that is written
about. Every other word has been used by several items or several people.
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

SOURCES = 3
"""So many items, or people, must have used a word."""
REVIEWS = 200_000
"""Reviews that are read for it, at most, evenly spaced."""
PIECES = 2
"""A word of so few tokens is common language to a pretrained model."""
WORD = re.compile(rf"[{UNSPACED}]|\d+(?:[.,]\d+)+[^\W_{UNSPACED}]*|[^\W_{UNSPACED}]+")
"""Letters and digits together, a number with what divides its digits; of scripts that set no words apart,
each sign."""
_SPACED = rf"(?:\d+(?:[.,]\d+)+[^\W_{UNSPACED}]*|[^\W_{UNSPACED}]+)"
WHOLE = re.compile(rf"[{UNSPACED}]|[$€£¥₹#@+]*{_SPACED}(?:['’.@&/+:_-]{_SPACED})*(?:\s?[%‰°€£¥])?")
"""What is kept or left out as one: words that signs join, and the signs of money and measure."""


class Vouched:
    """Knows the words that several sources have used."""

    def __init__(self, words: Iterable[str], pretrained: Tokenizer | None = None) -> None:
        """`pretrained`: the tokenizer of a model that knew its language before it came here."""
        self.words = frozenset(words)
        self.pretrained = pretrained
        self._common = lru_cache(maxsize=65_536)(self._is_common)

    def keep(self, text: str, own: str) -> str:
        """The text without words that nobody vouches for; `own` is what the catalog says of the item.

        A number goes whole, with its currency, and so does what signs join: no part of "$49.90" or of
        an address is left.
        """
        known = frozenset(word.casefold() for word in WORD.findall(own))

        def whole_or_nothing(found: re.Match[str]) -> str:
            words = WORD.findall(found.group())
            return found.group() if all(self._may_be_said(word, known) for word in words) else ""

        kept = WHOLE.sub(whole_or_nothing, text)
        return text if kept == text else " ".join(kept.split())

    def _may_be_said(self, word: str, known: frozenset[str]) -> bool:
        folded = word.casefold()
        return folded in known or folded in self.words or self._common(word)

    def _is_common(self, word: str) -> bool:
        if self.pretrained is None:
            return False
        (ids,) = plain_ids(self.pretrained, [f" {word}"])
        return len(ids) <= PIECES


def learn_vouched(catalog: Catalog, pairs: NextItemPairs) -> list[str]:
    """Words that `SOURCES` items' texts, or people's reviews, hold; of reviews those of training."""
    sources: Counter[str] = Counter()
    texts = catalog.texts()
    for item in track(range(catalog.num_items), "Reading words of items"):
        sources.update(words_of(texts(item)))
    reviews = catalog.interactions.reviews
    if reviews is not None:
        stride = max(1, -(-len(pairs) // REVIEWS))
        users, positions = pairs.users[::stride], pairs.positions[::stride]
        rows = np.asarray(catalog.interactions.offsets)[users] + positions
        said: set[str] = set()
        last = -1
        for user, row in track(
            list(zip(users.tolist(), rows.tolist(), strict=True)), "Reading reviews"
        ):
            if user != last:
                sources.update(said)
                said, last = set(), user
            said |= words_of(reviews[row])
        sources.update(said)
    return sorted(word for word, count in sources.items() if count >= SOURCES)


def words_of(text: str | None) -> set[str]:
    return {word.casefold() for word in WORD.findall(clean_text(text or ""))}
