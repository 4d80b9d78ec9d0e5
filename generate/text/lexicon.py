"""The general lexicon: words that are claims in every catalog, and words that never are (`lexicon.yaml`).

A catalog's own texts cannot teach that "waterproof" is a claim where no item is. The lexicon lists colours,
materials, substances, properties, certifications, editions, services and origins, in English, and words of
phrasing. "faux leather" is no leather, and "pure cotton" more than cotton.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from catalog.yaml_files import read_yaml

LEXICON = Path(__file__).with_name("lexicon.yaml")
NO_CLAIMS = ("phrasing", "aspects")
"""Categories of words that are never claims: phrasing, and names of aspects such as "colour"."""
QUALIFIED = ("colours", "materials")
"""Categories whose words may be qualified by what stands before or after them."""
_WORD = re.compile(r"[^\W_]+(?:['’](?!s\b)[^\W_]+)?")
_GAP = re.compile(r"[\s-]{1,2}")
_IMITATION = re.compile(r"(?:faux|fake|imitation|artificial|synthetic|mock|vegan|simulated)[\s-]+$")
_PURE = re.compile(r"(?:pure|purely|genuine|real|solid|authentic|100\s?%|100 percent)[\s-]+$")
_LOOKALIKE = re.compile(r"[\s-](?:look|effect|like|imitation)\b")


@dataclass(frozen=True)
class LexiconMatch:
    meaning: str
    """The entry's first spelling; after "imitation" or "pure" where the text qualifies it so."""
    category: str
    span: tuple[int, int]


class Lexicon:
    """Finds the entries of a lexicon in texts."""

    def __init__(self, content: dict[str, list[str | list[str]]]) -> None:
        """`content`: category → entries; "a | b" are of equal meaning, a list groups entries."""
        self.phrasing: frozenset[str] = frozenset(
            entry for name in NO_CLAIMS for entry in _entries(content.get(name, []))
        )
        """Words that are never claims."""
        self._by_first: dict[str, list[tuple[tuple[str, ...], str, str]]] = {}
        for category, listed in content.items():
            for entry in _entries(listed) if category not in NO_CLAIMS else ():
                spellings = [spelling.strip() for spelling in entry.split("|")]
                for spelling in spellings:
                    words = tuple(singular(word) for word in _words(spelling))
                    entry_of = (words, spellings[0], category)
                    self._by_first.setdefault(words[0], []).append(entry_of)
        for found in self._by_first.values():
            found.sort(key=lambda entry: -len(entry[0]))

    def find(self, text: str) -> Iterator[LexiconMatch]:
        """Yields the longest entries in a lower-case text, from left to right, without overlaps."""
        words = list(_WORD.finditer(text))
        keys = [singular(word[0].replace("’", "'")) for word in words]
        index = 0
        while index < len(words):
            for entry, meaning, category in self._by_first.get(keys[index], ()):
                last = index + len(entry) - 1
                if tuple(keys[index : last + 1]) == entry and _adjoin(
                    text, words[index : last + 1]
                ):
                    span = (words[index].start(), words[last].end())
                    yield _qualified(text, LexiconMatch(meaning, category, span))
                    index = last
                    break
            index += 1


def meanings(match: LexiconMatch) -> tuple[str, ...]:
    """What a match in the evidence supports: pure wool is wool, imitation leather is nothing but that."""
    return (match.meaning, match.meaning.removeprefix("pure "))


def singular(word: str) -> str:
    """The word without the plural s, as `forms` of `generate.text.faithfulness`."""
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word


@cache
def general_lexicon() -> Lexicon:
    """The lexicon of the package."""
    return Lexicon(read_yaml(LEXICON))


def _entries(listed: list[str | list[str]]) -> Iterator[str]:
    for entry in listed:
        yield from [entry] if isinstance(entry, str) else entry


def _words(text: str) -> list[str]:
    return [word[0] for word in _WORD.finditer(text.lower())]


def _adjoin(text: str, words: list[re.Match[str]]) -> bool:
    """Whether nothing but a space or a hyphen stands between the words."""
    return all(
        _GAP.fullmatch(text[before.end() : after.start()]) for before, after in pairwise(words)
    )


def _qualified(text: str, match: LexiconMatch) -> LexiconMatch:
    if match.category not in QUALIFIED:
        return match
    start, stop = match.span
    before, after = text[max(0, start - 16) : start], text[stop : stop + 12]
    pure = _PURE.search(before)
    if match.category == "materials":
        if found := _LOOKALIKE.match(after):
            return _named("imitation", match, start, stop + found.end())
        if found := _IMITATION.search(before):
            return _named("imitation", match, start - len(before) + found.start(), stop)
    return _named("pure", match, start - len(before) + pure.start(), stop) if pure else match


def _named(qualifier: str, match: LexiconMatch, start: int, stop: int) -> LexiconMatch:
    return LexiconMatch(f"{qualifier} {match.meaning}", match.category, (start, stop))
