"""What a catalog says of each item in few words: its attributes' values, and the words that set it apart."""

import re
from collections import Counter
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.progress import track
from generate.attributes import attribute_columns
from generate.text.scripts import unspaced_words, without_unspaced

KEYWORDS = 6
RECENT = 20
"""Items of a history that are looked at, the newest."""
COMMON = 0.2
"""A word in more than this share of the items sets none apart."""
WORD = re.compile(r"(?<!\w)[^\W\d_](?:[\w-]|['’](?=\w))+")


class Facts:
    """Of one catalog. Attributes are the items' columns of few short values."""

    def __init__(self, catalog: Catalog, common: float = COMMON) -> None:
        """A word in more than the share `common` of the items sets none apart."""
        self.catalog = catalog
        self.common = common
        self.texts = catalog.texts()
        self.columns = dict(attribute_columns(catalog))
        """Name → its values, as text; several of one item with ", " between."""

    def values(self, item: int) -> dict[str, list[str]]:
        """Attribute → the item's values of it; only those it has."""
        found = {name: column[item].as_py() for name, column in self.columns.items()}
        return {name: split_values(value) for name, value in found.items() if value}

    def keywords(self, item: int) -> tuple[str, ...]:
        """At most six: the attributes' values, then the rarest words that other items have too."""
        values = [value.lower() for listed in self.values(item).values() for value in listed]
        found = list(dict.fromkeys(values))
        if len(found) < KEYWORDS:
            most = self.common * self.catalog.num_items
            words = {
                word: self.words[word]
                for word in words_of(self.texts(item))
                if 1 < self.words[word] <= most and not any(word in value for value in found)
            }
            found += sorted(words, key=lambda word: (words[word], word))
        return tuple(found[:KEYWORDS])

    def shared(self, item: int, history: NDArray[np.integer], most: int = 2) -> tuple[str, ...]:
        """Of the item's keywords those that the history has more often than the catalog, the most
        telling first; each at least twice."""
        codes, names, frequency = self._coded
        recent = codes[history[-RECENT:]]
        found = []
        for code in codes[item][codes[item] >= 0].tolist():
            count = int((recent == code).sum())
            lift = count / max(1, len(recent)) / (frequency[code] / self.catalog.num_items)
            if count >= 2 and lift > 1:
                found.append((-lift, names[code]))
        return tuple(word for _, word in sorted(found)[:most])

    @cached_property
    def _coded(self) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64]]:
        """Keywords as numbers, int32 (num_items, 6), -1 for none; their names; how many have each."""
        codes = np.full((self.catalog.num_items, KEYWORDS), -1, dtype=np.int32)
        known: dict[str, int] = {}
        for item in track(range(self.catalog.num_items), "Counting keywords"):
            for place, word in enumerate(self.keywords(item)):
                codes[item, place] = known.setdefault(word, len(known))
        return codes, list(known), np.bincount(codes[codes >= 0], minlength=len(known))

    @cached_property
    def words(self) -> Counter[str]:
        """In how many items each word is."""
        counts: Counter[str] = Counter()
        for item in track(range(self.catalog.num_items), "Counting words"):
            counts.update(set(words_of(self.texts(item))))
        return counts


def split_values(text: str) -> list[str]:
    return [value for part in text.split(",") if (value := part.strip())]


def words_of(text: str | None) -> list[str]:
    """Its words of two letters or more, small; numbers, and letters that follow one, are none.

    For scripts that set no words apart see `generate.text.scripts`.
    """
    lowered = (text or "").lower()
    unspaced = unspaced_words(lowered)
    found = WORD.findall(without_unspaced(lowered) if unspaced else lowered)
    words = (word.replace("’", "'").rstrip("-") for word in found)
    return [*(word.removesuffix("'s") for word in words), *unspaced]
