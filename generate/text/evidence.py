"""Evidence about one item: words, lexicon entries and numbers of a text, affirmed and negated ones apart."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from catalog.catalog import Catalog
from generate.text.keywords import KeywordIndex, extract_words
from generate.text.lexicon import LexiconMatch, general_lexicon, meanings
from generate.text.negation import is_negated, negated_spans, split_negated
from generate.text.quantities import MONEY, quantities
from generate.text.scripts import UNSPACED, UNSPACED_CHARACTER

MIN_LOWER = 0.3
"""Share of a sentence's words that begin in lower case, at least, for capitalized ones to be names."""
Number = tuple[float | str, str | None]
"""(value, kind) as in `Quantity`."""


@dataclass(frozen=True)
class Evidence:
    """Evidence about one item: its text, words, lexicon entries and numbers in the catalog and in reviews."""

    text: str
    negated: Sequence[tuple[int, int]]
    """Spans of the text that are negated."""
    words: tuple[frozenset[str], frozenset[str]]
    """Affirmed words, and negated ones."""
    parts: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    """Parts of hyphenated words: of "raw-edge", of which "raw" was checked, "edge" remains."""
    meanings: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    """Entries of the general lexicon, affirmed and negated."""
    numbers: frozenset[Number] = field(default_factory=frozenset)

    def contains(self, phrase: str, negated: bool) -> bool:
        found = re.finditer(bounded(phrase), self.text)
        return any(is_negated(match.span(), self.negated) == negated for match in found)


def read_evidence(
    text: str, implied: frozenset[str] = frozenset(), price: float | None = None
) -> Evidence:
    """Evidence from all that is known of an item as one `text`, from words that users say of items like it,
    and from its price."""
    lowered = text.lower()
    spans = negated_spans(lowered)
    affirmed, denied = split_negated(lowered, spans)
    words = {form for word in extract_words(affirmed) for form in forms(word)}
    no_words = frozenset(form for word in extract_words(denied) for form in forms(word))
    found: tuple[set[str], set[str]] = (set(), set())
    for match in general_lexicon().find(lowered):
        found[is_negated(match.span, spans)].update(meanings(match))
    for word in implied:
        found[0].update(match.meaning for match in general_lexicon().find(word))
    numbers: set[Number] = {(one.value, one.kind) for one in quantities(lowered)}
    if price is not None and math.isfinite(price):
        numbers |= {(float(f"{price:.2f}"), MONEY), (float(round(price)), MONEY)}
    # A text may give the price without its currency.
    numbers |= {(value, None) for value, kind in numbers if kind == MONEY}
    return Evidence(
        lowered,
        spans,
        (frozenset(words) | implied, no_words),
        (_parts(words), _parts(no_words)),
        (frozenset(found[0]), frozenset(found[1])),
        frozenset(numbers),
    )


def _parts(words: Iterable[str]) -> frozenset[str]:
    parts = (part for word in words if "-" in word for part in word.split("-"))
    return frozenset(form for part in parts for form in forms(part))


def item_facts(catalog: Catalog, keyword_index: KeywordIndex, item: int) -> str:
    """What the catalog says of an item, as text: title and text, its attributes by name, its price."""
    facts = [keyword_index.texts(item) or ""]
    for name, values in keyword_index.attribute_values(item).items():
        facts.append(f"{name.removesuffix('_name').replace('_', ' ')}: {', '.join(values)}.")
    price = item_price(catalog, item)
    return " ".join(filter(None, [*facts, "" if price is None else f"Price: {price:.2f}."]))


def item_price(catalog: Catalog, item: int) -> float | None:
    """The price of an item; None where it has none, or one that is not finite."""
    price = catalog.column("price")[item].as_py() if catalog.has_column("price") else None
    return price if price is not None and math.isfinite(price) else None


def longest_matches(
    phrases: Sequence[re.Match[str]], entries: Sequence[LexiconMatch]
) -> tuple[list[re.Match[str]], list[LexiconMatch]]:
    """Without overlaps: an attribute's value gives way to a longer lexicon entry around it ("faux leather"),
    and every other lexicon entry to the values that it overlaps."""
    long = [
        entry.span
        for entry in entries
        if any(
            _lies_in(match.span(), entry.span) and match.span() != entry.span for match in phrases
        )
    ]
    kept = [match for match in phrases if not any(_lies_in(match.span(), span) for span in long)]
    spans = [match.span() for match in kept]
    return kept, [
        entry
        for entry in entries
        if not any(start < entry.span[1] and entry.span[0] < stop for start, stop in spans)
    ]


def _lies_in(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with spaces in place of the spans."""
    for start, stop in spans:
        text = f"{text[:start]}{' ' * (stop - start)}{text[stop:]}"
    return text


def name_words(text: str) -> frozenset[str]:
    """Words of names, in lower case: of two or more capitalized words in a row, unless most of the sentence
    is capitalized, as titles are."""
    found: set[str] = set()
    for sentence in re.split(r"[.!?:;]\s", text):
        words = sentence.split()
        if sum(word[0].islower() for word in words) < MIN_LOWER * len(words):
            continue
        for capitalized, run in groupby(words, lambda word: word.strip("\"'“‘(")[:1].isupper()):
            listed = list(run)
            if capitalized and len(listed) > 1:
                found.update(extract_words(" ".join(listed)))
    return frozenset(found)


def affirmed_words(text: str) -> list[str]:
    """Words of a text that it does not negate."""
    lowered = text.lower()
    return extract_words(split_negated(lowered, negated_spans(lowered))[0])


def bounded(phrase: str) -> str:
    """A pattern that finds the phrase as a word; characters of unspaced scripts need no boundary."""
    start = "" if UNSPACED_CHARACTER.match(phrase[0]) else rf"(?<![^\W{UNSPACED}])(?<!-)"
    end = "" if UNSPACED_CHARACTER.match(phrase[-1]) else rf"(?![^\W{UNSPACED}])(?!-)"
    return f"{start}{re.escape(phrase)}{end}"


def forms(word: str) -> tuple[str, ...]:
    """The word, and its singular without the plural s: "boots" supports "boot"."""
    if word.endswith("s") and len(word) > 3 and not word.endswith("ss"):
        return word, word[:-1]
    return (word,)
