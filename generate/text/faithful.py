"""Says of each claim in a text whether the catalog bears it out: supported, unsupported, contradicts.

A claim is a value of one of the catalog's attributes, a number, or a word by which its items differ:
one that some items' texts hold and most do not, or one on which reviews of the same item agree. What
the catalog says of an item is its text, its attributes, its price and what people who took it before
said of it; and what people say of items that are alike in one of those: who calls a coat "oak-coloured"
or "a bargain" is borne out by others saying so of what the shop calls timber, or sells as cheaply. All
other words (how a sentence is put, what somebody feels) claim nothing.

What is denied is not borne out by what is affirmed, nor the reverse, as far as English says so
(`generate.text.negation`); a number has the unit or currency beside it (`generate.text.quantities`). What
no item's text says, such as a certificate, is no word by which items differ and is not found: the check
knows what the catalog leaves open or contradicts, and no more.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.progress import track
from catalog.splits import Split
from generate.text.facts import Facts, split_values, words_of
from generate.text.negation import affirmed_and_denied, denied_spans, is_denied
from generate.text.quantities import MONEY, quantities
from generate.text.scripts import UNSPACED, UNSPACED_SIGN, unspaced_words

Verdict = Literal["supported", "unsupported", "contradicts"]
AGREEMENT = 2.0
"""So many times as often as by chance another review of the same item holds a word that is a claim."""
SEEN = 5
"""Pairs of reviews of one item that must agree on a word before it counts as one."""
NEARLY = 0.5
"""A trait of items implies a word that is said of them so often, against the trait that most implies it."""
LIFT, SURELY = 1.5, 4.0
"""And so many times as often as of all items, by so many standard deviations of chance."""
BANDS = 8
"""Of prices, among items of one category."""
MOST = 50_000
"""Reviews that are compared, evenly spaced over the items."""
REVIEWS = 50
"""Reviews of an item that are looked at."""
TRAITS = 12
"""Telling words of an item's text that imply others, the rarest."""


@dataclass(frozen=True)
class Claim:
    words: str
    """As in the text; after "not" where the text denies it."""
    verdict: Verdict
    about: str
    """The attribute, "number", or "word"."""


class Checker:
    """Of one catalog, and of the training part of its reviews."""

    def __init__(self, catalog: Catalog, split: Split | None = None, facts: Facts | None = None):
        """Without a split reviews say nothing."""
        self.catalog = catalog
        self.facts = facts or Facts(catalog)
        self.texts = catalog.interactions.reviews if split is not None else None
        self.rows, self.bounds = rows_of_items(catalog, split if self.texts else None)
        """Rows of training interactions, item by item, and where each item's begin."""
        self._said = lru_cache(maxsize=16_384)(self._find_said)

    def reviews(self, item: int) -> list[str]:
        """What was said of it in training."""
        rows = self.rows[self.bounds[item] : self.bounds[item + 1]][:REVIEWS]
        return [text for row in rows if self.texts and (text := self.texts[row])]

    def check(self, text: str, item: int) -> list[Claim]:
        """Every claim in `text`, as it would be about `item` (its row)."""
        said = self._said(int(item))
        lowered = text.lower()
        own = self.facts.values(item)
        claims: dict[str, Claim] = {}
        denied = denied_spans(lowered)
        for match in self._phrases.finditer(lowered):
            no = is_denied(match.span(), denied)
            words = f"not {match[0]}" if no else match[0]
            claims.setdefault(words, Claim(words, *self._judge(match[0], own, said, no)))
        # Words of a phrase that was judged as a whole are no claims of their own.
        rest = self._phrases.sub(lambda match: " " * len(match[0]), lowered)
        for part, no in zip(affirmed_and_denied(rest, denied), (False, True), strict=True):
            for word in words_of(part):
                words = f"not {word}" if no else word
                if self.tells_apart(word) and words not in claims:
                    known = not said.words[no].isdisjoint(forms(word))
                    claims[words] = Claim(words, "supported" if known else "unsupported", "word")
        for found in quantities(lowered):
            known = (found.value, found.kind) in said.numbers
            verdict = "supported" if known else "unsupported"
            claims[found.words] = Claim(found.words, verdict, "number")
        return list(claims.values())

    def supports(self, text: str, item: int) -> bool:
        return all(claim.verdict == "supported" for claim in self.check(text, item))

    def tells_apart(self, word: str) -> bool:
        """Whether items differ in it."""
        return not self._apart.isdisjoint(forms(word))

    def _judge(
        self, phrase: str, own: dict[str, list[str]], said: "_Said", denied: bool
    ) -> tuple[Verdict, str]:
        names = self._attributes[phrase]
        known = [name for name in names if name in own]
        has = any(phrase == value.lower() for name in names for value in own.get(name, []))
        if has:
            return ("contradicts" if denied else "supported"), names[0]
        words = words_of(phrase)
        digits = any(sign.isdigit() for sign in phrase)
        borne_out = bool(words) and not digits and said.words[denied].issuperset(words)
        if borne_out or said.holds(phrase, denied) or (denied and known):
            return "supported", names[0]
        return ("contradicts", known[0]) if known else ("unsupported", names[0])

    @cached_property
    def _attributes(self) -> dict[str, list[str]]:
        """Each attribute's value, in small letters → the attributes that have it."""
        found: dict[str, list[str]] = {}
        for name, column in self.facts.columns.items():
            for listed in column.unique().to_pylist():
                for value in split_values((listed or "").lower()):
                    names = found.setdefault(value, [])
                    if name not in names:
                        names.append(name)
        # A lone letter, or a number alone, which is judged as a number, is no phrase.
        return {
            value: names
            for value, names in found.items()
            if (len(value) > 1 or unspaced_words(value)) and any(map(str.isalpha, value))
        }

    @cached_property
    def _phrases(self) -> re.Pattern[str]:
        longest = sorted(self._attributes, key=len, reverse=True)
        if not longest:
            return re.compile(r"(?!)")
        return re.compile("|".join(map(_bounded, longest)))

    @cached_property
    def _apart(self) -> frozenset[str]:
        counts = self.facts.words
        common = self.facts.common * self.catalog.num_items
        told = {word for word, count in counts.items() if 1 < count <= common}
        return frozenset(told) | self._agreed

    @cached_property
    def _agreed(self) -> frozenset[str]:
        """Words on which reviews of the same item agree more than those of different ones do."""
        texts = self.texts
        if texts is None:
            return frozenset()
        reviews: Counter[str] = Counter()
        together: Counter[str] = Counter()
        pairs = total = 0
        several = np.flatnonzero(np.diff(self.bounds) > 1)
        stride = max(1, -(-len(self.rows) // MOST))
        for item in track(several[::stride].tolist(), "Comparing reviews"):
            told = [words for text in self.reviews(item) if (words := set(words_of(text)))]
            counts = Counter(word for words in told for word in words)
            reviews.update(counts)
            total += len(told)
            pairs += len(told) * (len(told) - 1) // 2
            together.update({word: n * (n - 1) // 2 for word, n in counts.items() if n > 1})
        if not pairs:
            return frozenset()
        return frozenset(
            word
            for word, count in together.items()
            if count >= SEEN and count / pairs > AGREEMENT * (reviews[word] / total) ** 2
        )

    @cached_property
    def _implied(self) -> dict[str, frozenset[str]]:
        """Trait of an item → claims that people make of items with it, nearly as often as of any."""
        if self.texts is None:
            return {}
        having: Counter[str] = Counter()
        saying: Counter[str] = Counter()
        both: Counter[tuple[str, str]] = Counter()
        places = np.arange(0, len(self.rows), max(1, -(-len(self.rows) // MOST)))
        items = np.searchsorted(self.bounds, places, side="right") - 1
        told = [
            (int(i), t)
            for i, p in zip(items, places, strict=True)
            if (t := self.texts[self.rows[p]])
        ]
        for item, text in track(told, "Comparing reviews with items"):
            words = {word for word in words_of(_affirmed(text)) if self.tells_apart(word)}
            traits = self._traits(item)
            having.update(traits)
            saying.update(words)
            both.update((trait, word) for trait in traits for word in words)
        shares: dict[tuple[str, str], float] = {}
        most: dict[str, float] = {}
        for (trait, word), count in both.items():
            by_chance = having[trait] * saying[word] / len(told)
            if count < max(SEEN, LIFT * by_chance, by_chance + SURELY * by_chance**0.5):
                continue
            shares[trait, word] = count / having[trait]
            most[word] = max(most.get(word, 0.0), shares[trait, word])
        found: dict[str, set[str]] = {}
        for (trait, word), share in shares.items():
            if share >= NEARLY * most[word]:
                found.setdefault(trait, set()).add(word)
        return {trait: frozenset(words) for trait, words in found.items()}

    def _traits(self, item: int) -> set[str]:
        """What the catalog tells of an item, as far as items differ in it."""
        text = _affirmed(self.facts.texts(item) or "")
        words = {word for word in words_of(text) if self.tells_apart(word)}
        found = set(sorted(words, key=lambda word: (self.facts.words[word], word))[:TRAITS])
        for name, values in self.facts.values(item).items():
            found |= {f"{name}: {value.lower()}" for value in values}
        band = self._bands.get(item)
        return found if band is None else {*found, f"price: {band}"}

    @cached_property
    def _bands(self) -> dict[int, int]:
        """Item → the eighth of its category's prices that it is in."""
        items = self.catalog.items.data
        if "price" not in items.column_names:
            return {}
        prices = np.array(items.column("price").to_pylist(), dtype=np.float64)
        names = np.array(items.column("category").fill_null("").to_pylist(), dtype=object)
        found: dict[int, int] = {}
        known = np.flatnonzero(np.isfinite(prices))
        order = known[np.argsort(names[known].astype(str), kind="stable")]
        starts = np.flatnonzero(names[order][1:] != names[order][:-1]) + 1
        for members in np.split(order, starts):
            if len(members) >= BANDS:
                bounds = np.quantile(prices[members], np.arange(1, BANDS) / BANDS)
                bands = np.searchsorted(bounds, prices[members], side="right")
                found |= dict(zip(members.tolist(), bands.tolist(), strict=True))
        return found

    def _find_said(self, item: int) -> "_Said":
        values = [value for listed in self.facts.values(item).values() for value in listed]
        parts = [self.facts.texts(item) or "", *values, *self.reviews(item)]
        text = "\n".join(parts).lower()
        spans = denied_spans(text)
        affirmed, denied = affirmed_and_denied(text, spans)
        words = {form for word in words_of(affirmed) for form in forms(word)}
        no_words = frozenset(form for word in words_of(denied) for form in forms(word))
        for trait in self._traits(item):
            words |= self._implied.get(trait, frozenset())
        numbers = {(found.value, found.kind) for found in quantities(text)}
        if self.catalog.has_column("price"):
            price = self.catalog.column("price")[item].as_py()
            if price is not None and math.isfinite(price):
                numbers |= {(float(f"{price:.2f}"), MONEY), (float(round(price)), MONEY)}
        # A price may be told without its currency.
        numbers |= {(value, None) for value, kind in numbers if kind == MONEY}
        return _Said(text, spans, (frozenset(words), no_words), frozenset(numbers))


def rows_of_items(
    catalog: Catalog, split: Split | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training interactions ordered by item, and the bounds of each item's, (items + 1,)."""
    if split is None:
        return np.empty(0, np.int64), np.zeros(catalog.num_items + 1, np.int64)
    offsets = np.asarray(catalog.interactions.offsets)
    lengths = np.diff(offsets)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    learned = np.flatnonzero(places < np.repeat(split.train_end, lengths))
    items = np.asarray(catalog.interactions.items)[learned]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(items, minlength=catalog.num_items))])
    return learned[np.argsort(items, kind="stable")], bounds


@dataclass(frozen=True)
class _Said:
    """What the catalog says of an item."""

    text: str
    denied: Sequence[tuple[int, int]]
    """Where in the text the words stand that it denies."""
    words: tuple[frozenset[str], frozenset[str]]
    """What is affirmed, and what is denied."""
    numbers: frozenset[tuple[float | str, str | None]]
    """Value and what it measures, as in `Quantity`."""

    def holds(self, phrase: str, denied: bool) -> bool:
        found = re.finditer(_bounded(phrase), self.text)
        return any(is_denied(match.span(), self.denied) == denied for match in found)


def _affirmed(text: str) -> str:
    lowered = text.lower()
    return affirmed_and_denied(lowered, denied_spans(lowered))[0]


def _bounded(phrase: str) -> str:
    """A pattern that finds the phrase as a word; signs of unspaced scripts bound themselves."""
    start = "" if UNSPACED_SIGN.match(phrase[0]) else rf"(?<![^\W{UNSPACED}])(?<!-)"
    end = "" if UNSPACED_SIGN.match(phrase[-1]) else rf"(?![^\W{UNSPACED}])(?!-)"
    return f"{start}{re.escape(phrase)}{end}"


def forms(word: str) -> tuple[str, ...]:
    """The word, and without a plural's s: "boots" bears out "boot"."""
    if word.endswith("s") and len(word) > 3 and not word.endswith("ss"):
        return word, word[:-1]
    return (word,)


def unsupported_share(claims: Iterable[Sequence[Claim]]) -> float:
    """Of all claims of many texts, the share that the catalog does not bear out; 0 without any."""
    verdicts = [claim.verdict for listed in claims for claim in listed]
    return 1 - verdicts.count("supported") / len(verdicts) if verdicts else 0.0
