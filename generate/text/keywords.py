"""Keywords of items: attribute values, and distinctive words by document frequency."""

import re
from collections import Counter
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from wordfreq import word_frequency

from catalog.catalog import Catalog
from catalog.progress import track
from generate.attributes import attribute_columns
from generate.text.scripts import unspaced_words, without_unspaced

MAX_KEYWORDS = 6
RECENT_ITEMS = 20
"""Newest items of a history whose keywords are counted."""
MAX_DOCUMENT_SHARE = 0.2
"""A word in more than this share of the items is too common to be a keyword."""
RAREST = 1e-8
"""Frequency of words that English hardly knows."""
WORD = re.compile(r"(?<!\w)[^\W\d_](?:[\w-]|['’](?=\w))+")


class KeywordIndex:
    """Attribute values, keywords and document frequencies of one catalog's items."""

    def __init__(self, catalog: Catalog, max_document_share: float = MAX_DOCUMENT_SHARE) -> None:
        """A word in more than `max_document_share` of the items is no keyword."""
        self.catalog = catalog
        self.max_document_share = max_document_share
        self.texts = catalog.texts()
        self.attributes = dict(attribute_columns(catalog))
        """Name → its values, as text; several of one item separated by commas."""

    def attribute_values(self, item: int) -> dict[str, list[str]]:
        """Attribute → the item's values of it; only those it has."""
        values = {name: column[item].as_py() for name, column in self.attributes.items()}
        return {name: split_values(value) for name, value in values.items() if value}

    def keywords(self, item: int) -> tuple[str, ...]:
        """At most MAX_KEYWORDS: the attribute values, then the rarest words that other items have too."""
        listed = self.attribute_values(item).values()
        keywords = list(dict.fromkeys(value.lower() for values in listed for value in values))
        if len(keywords) < MAX_KEYWORDS:
            most = self.max_document_share * self.catalog.num_items
            frequencies = self.document_frequencies
            rare = {
                word: frequencies[word]
                for word in extract_words(self.texts(item))
                if 1 < frequencies[word] <= most and not any(word in one for one in keywords)
            }
            keywords += sorted(rare, key=lambda word: (rare[word], word))
        return tuple(keywords[:MAX_KEYWORDS])

    def shared_keywords(
        self, item: int, history: NDArray[np.integer], at_most: int = 2
    ) -> tuple[str, ...]:
        """Keywords of the item that are more frequent in a history than in the catalog, by lift; each occurs
        at least twice in the history."""
        codes, names, frequencies = self._coded
        recent = codes[history[-RECENT_ITEMS:]]
        shared = []
        for code in codes[item][codes[item] >= 0].tolist():
            count = int((recent == code).sum())
            lift = count / max(1, len(recent)) / (frequencies[code] / self.catalog.num_items)
            if count >= 2 and lift > 1:
                shared.append((-lift, names[code]))
        return tuple(word for _, word in sorted(shared)[:at_most])

    @cached_property
    def _coded(self) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64]]:
        """Keyword codes, int32 (num_items, MAX_KEYWORDS), -1 for none; their names; their frequencies."""
        codes = np.full((self.catalog.num_items, MAX_KEYWORDS), -1, dtype=np.int32)
        known: dict[str, int] = {}
        for item in track(range(self.catalog.num_items), "Counting keywords"):
            for column, word in enumerate(self.keywords(item)):
                codes[item, column] = known.setdefault(word, len(known))
        return codes, list(known), np.bincount(codes[codes >= 0], minlength=len(known))

    @cached_property
    def document_frequencies(self) -> Counter[str]:
        """Word → number of items whose text contains it."""
        counts: Counter[str] = Counter()
        for item in track(range(self.catalog.num_items), "Counting words"):
            counts.update(set(extract_words(self.texts(item))))
        return counts

    @cached_property
    def keyness(self) -> dict[str, float]:
        """Word → how many times as frequent it is in the items' texts, each item counted once, as in English
        at large (wordfreq: Speer, 2022); words that English hardly knows count as one in a hundred million.
        """
        total = sum(self.document_frequencies.values())
        return {
            word: count / total / max(word_frequency(word, "en"), RAREST)
            for word, count in self.document_frequencies.items()
        }


def split_values(text: str) -> list[str]:
    """Values of a column that may hold several, separated by commas."""
    return [value for part in text.split(",") if (value := part.strip())]


def extract_words(text: str | None) -> list[str]:
    """Words of two letters or more, in lower case; no numbers, nor letters that follow one.

    For scripts without spaces see `generate.text.scripts`.
    """
    lowered = (text or "").lower()
    unspaced = unspaced_words(lowered)
    found = WORD.findall(without_unspaced(lowered) if unspaced else lowered)
    words = (word.replace("’", "'").rstrip("-") for word in found)
    return [*(word.removesuffix("'s") for word in words), *unspaced]
