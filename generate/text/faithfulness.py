"""Faithfulness: checks each claim of a text against the catalog: supported, unsupported, contradicts.

A claim is a value of one of the catalog's attributes, a number, an entry of the general lexicon of
materials, properties, certificates (`generate.text.lexicon`), a name, or a distinctive word: one that some
items' texts contain and most do not, and that they use more than English at large does, or one on which
reviews of the same item agree. Evidence for an item is its text, its attributes, its price and its training
reviews, and the words that reviews use for items with the same trait: a coat may be called "oak-coloured" or
"a bargain" if reviewers use these words for items that the shop calls timber, or that cost as little. Other
words (phrasing, feelings) are no claims.

A negated claim is not supported by an affirmed one, nor the reverse; a denied name is supported where the
item's texts do not have it, because they say who made an item and not who did not. Negation is detected in
English only (`generate.text.negation`). A number has the unit or currency beside it
(`generate.text.quantities`).
Limitations: the lexicon is English, and ends somewhere: an invented certificate that neither it nor any
item's text names is no claim to this check. Words are compared, not sentences: who did what to whom is left
to an entailment model (`generate.text.judge`).
"""

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
from generate.text.evidence import (
    Evidence,
    affirmed_words,
    blanked,
    bounded,
    forms,
    item_price,
    longest_matches,
    name_words,
    read_evidence,
)
from generate.text.keywords import KeywordIndex, extract_words, split_values
from generate.text.lexicon import general_lexicon
from generate.text.negation import is_negated, negated_spans, split_negated
from generate.text.quantities import NUMBER_WORDS, quantities
from generate.text.scripts import unspaced_words

Verdict = Literal["supported", "unsupported", "contradicts"]
AGREEMENT = 2.0
"""Lift above which a review word is a claim: how often two reviews of one item share it, over chance."""
MIN_KEYNESS = 3.0
"""How many times as frequent as in English at large a word of the items' texts is, at least, for it to count
as a claim: a shop of films says "expect" and "notice" as often as anyone."""
MIN_COUNT = 5
"""Least number of review pairs (of the same item) that share a word, for it to count as a claim."""
MIN_RELATIVE_SHARE = 0.5
"""A trait implies a word only if the share of its reviews with the word is at least this fraction of the
largest such share of any trait."""
MIN_LIFT, MIN_DEVIATIONS = 1.5, 4.0
"""Least lift over all items, and least standard deviations above chance, for a trait to imply a word."""
PRICE_BANDS = 8
"""Price quantiles among items of one category."""
MAX_COMPARED_REVIEWS = 50_000
"""Reviews that are compared, at most, evenly spaced over the items."""
MAX_ITEM_REVIEWS = 50
"""Reviews that are read of one item, at most."""
MAX_TRAITS = 12
"""Distinctive words of an item's text that are traits, at most: the rarest."""


@dataclass(frozen=True)
class Claim:
    words: str
    """The words of the text; with "not" before them where the text negates them."""
    verdict: Verdict
    about: str
    """The attribute, "number", "word", a category of the lexicon, or "sentence" (an entailment model)."""


class ClaimChecker:
    """Checks the faithfulness of texts to one catalog and the training part of its reviews."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split | None = None,
        keyword_index: KeywordIndex | None = None,
    ) -> None:
        """Without a split no reviews are read."""
        self.catalog = catalog
        self.keyword_index = keyword_index or KeywordIndex(catalog)
        self.texts = catalog.interactions.reviews if split is not None else None
        self.rows, self.bounds = rows_of_items(catalog, split if self.texts else None)
        """Rows of training interactions, item by item, and where each item's begin."""
        self._evidence = lru_cache(maxsize=16_384)(self._find_evidence)

    def reviews(self, item: int) -> list[str]:
        """Training reviews of an item."""
        rows = self.rows[self.bounds[item] : self.bounds[item + 1]][:MAX_ITEM_REVIEWS]
        return [text for row in rows if self.texts and (text := self.texts[row])]

    def check(self, text: str, item: int) -> list[Claim]:
        """Extracts all claims in `text` and checks them against the evidence for `item` (its row)."""
        evidence = self._evidence(int(item))
        lowered = text.lower()
        values = self.keyword_index.attribute_values(item)
        claims: dict[str, Claim] = {}
        spans = negated_spans(lowered)
        named = set(name_words(text))
        names = {word for word in named if self._is_rare(word)}
        entries = list(general_lexicon().find(lowered))
        phrases, entries = longest_matches(list(self._phrases.finditer(lowered)), entries)
        for match in phrases:
            negated = is_negated(match.span(), spans)
            words = f"not {match[0]}" if negated else match[0]
            verdict = self._verdict(match[0], values, evidence, negated)
            claims.setdefault(words, Claim(words, *verdict))
        for entry in entries:
            negated = is_negated(entry.span, spans)
            words = ("not " if negated else "") + lowered[slice(*entry.span)]
            verdict = _lexicon_verdict(entry.meaning, evidence, negated)
            claims.setdefault(words, Claim(words, verdict, entry.category))
        # Words of a phrase that was checked as a whole are no claims of their own.
        checked = [match.span() for match in phrases] + [entry.span for entry in entries]
        parts = split_negated(blanked(lowered, checked), spans)
        for part, negated in zip(parts, (False, True), strict=True):
            for word in extract_words(part):
                words = f"not {word}" if negated else word
                is_claim = self.is_distinctive(word) or word in names
                if is_claim and words not in claims:
                    known = not evidence.words[negated].isdisjoint(forms(word))
                    known = known or word in evidence.parts[negated]
                    if negated and word in named:  # the shop says who made an item, not who did not
                        known = evidence.words[False].isdisjoint(forms(word))
                    claims[words] = Claim(words, "supported" if known else "unsupported", "word")
        for quantity in quantities(lowered):
            known = (quantity.value, quantity.kind) in evidence.numbers
            verdict = "supported" if known else "unsupported"
            claims[quantity.words] = Claim(quantity.words, verdict, "number")
        return list(claims.values())

    def supports(self, text: str, item: int) -> bool:
        """Faithfulness of one text: whether all its claims about `item` are supported."""
        return all(claim.verdict == "supported" for claim in self.check(text, item))

    def is_distinctive(self, word: str) -> bool:
        """Whether a word is distinctive: a claim that needs evidence (see the module docstring)."""
        return not self._distinctive.isdisjoint(forms(word))

    def _is_rare(self, word: str) -> bool:
        """Whether at most one item's text has the word: as a name it is a claim, as a word it is none."""
        rare = self.keyword_index.document_frequencies[word] <= 1
        return rare and general_lexicon().phrasing.isdisjoint(forms(word))

    def _verdict(
        self, phrase: str, values: dict[str, list[str]], evidence: Evidence, negated: bool
    ) -> tuple[Verdict, str]:
        """Verdict on an attribute value in a text, and the name of the attribute."""
        names = self._attributes[phrase]
        known = [name for name in names if name in values]
        has = any(phrase == value.lower() for name in names for value in values.get(name, []))
        if has:
            return ("contradicts" if negated else "supported"), names[0]
        words = extract_words(phrase)
        digits = any(sign.isdigit() for sign in phrase)
        all_words = bool(words) and not digits and evidence.words[negated].issuperset(words)
        if all_words or evidence.contains(phrase, negated) or (negated and known):
            return "supported", names[0]
        return ("contradicts", known[0]) if known else ("unsupported", names[0])

    @cached_property
    def _attributes(self) -> dict[str, list[str]]:
        """Each attribute's value, in lower case → the attributes that have it."""
        found: dict[str, list[str]] = {}
        for name, column in self.keyword_index.attributes.items():
            for listed in column.unique().to_pylist():
                for value in split_values((listed or "").lower()):
                    names = found.setdefault(value, [])
                    if name not in names:
                        names.append(name)
        # Single letters are no phrases, nor are plain numbers, which are checked as numbers.
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
        return re.compile("|".join(map(bounded, longest)))

    @cached_property
    def _distinctive(self) -> frozenset[str]:
        counts = self.keyword_index.document_frequencies
        common = self.keyword_index.max_document_share * self.catalog.num_items
        keyness = self.keyword_index.keyness
        of_texts = {
            word
            for word, count in counts.items()
            if 1 < count <= common and keyness[word] >= MIN_KEYNESS
        }
        phrasing = general_lexicon().phrasing
        of_texts = {word for word in of_texts if phrasing.isdisjoint(forms(word))}
        # Reviews that agree on "very" agree on a price, say: what they agree on is no mere phrasing.
        return frozenset((of_texts | self._agreed_words) - NUMBER_WORDS.keys())

    @cached_property
    def _agreed_words(self) -> frozenset[str]:
        """Words that two reviews of the same item share more often than reviews of different items do."""
        texts = self.texts
        if texts is None:
            return frozenset()
        reviews: Counter[str] = Counter()
        together: Counter[str] = Counter()
        pairs = total = 0
        several = np.flatnonzero(np.diff(self.bounds) > 1)
        stride = max(1, -(-len(self.rows) // MAX_COMPARED_REVIEWS))
        for item in track(several[::stride].tolist(), "Comparing reviews"):
            of_reviews = [
                words for text in self.reviews(item) if (words := set(extract_words(text)))
            ]
            counts = Counter(word for words in of_reviews for word in words)
            reviews.update(counts)
            total += len(of_reviews)
            pairs += len(of_reviews) * (len(of_reviews) - 1) // 2
            together.update({word: n * (n - 1) // 2 for word, n in counts.items() if n > 1})
        if not pairs:
            return frozenset()
        return frozenset(
            word
            for word, count in together.items()
            if count >= MIN_COUNT and count / pairs > AGREEMENT * (reviews[word] / total) ** 2
        )

    @cached_property
    def _implied(self) -> dict[str, frozenset[str]]:
        """Trait → distinctive words that reviews use of items with it far more often than by chance."""
        if self.texts is None:
            return {}
        of_trait: Counter[str] = Counter()
        of_word: Counter[str] = Counter()
        both: Counter[tuple[str, str]] = Counter()
        reviews = self._sampled_reviews()
        for item, text in track(reviews, "Comparing reviews with items"):
            words = {word for word in affirmed_words(text) if self.is_distinctive(word)}
            traits = self._traits(item)
            of_trait.update(traits)
            of_word.update(words)
            both.update((trait, word) for trait in traits for word in words)
        shares: dict[tuple[str, str], float] = {}
        largest: dict[str, float] = {}
        for (trait, word), count in both.items():
            by_chance = of_trait[trait] * of_word[word] / len(reviews)
            deviation = by_chance**0.5
            if count < max(MIN_COUNT, MIN_LIFT * by_chance, by_chance + MIN_DEVIATIONS * deviation):
                continue
            shares[trait, word] = count / of_trait[trait]
            largest[word] = max(largest.get(word, 0.0), shares[trait, word])
        implied: dict[str, set[str]] = {}
        for (trait, word), share in shares.items():
            if share >= MIN_RELATIVE_SHARE * largest[word]:
                implied.setdefault(trait, set()).add(word)
        return {trait: frozenset(words) for trait, words in implied.items()}

    def _sampled_reviews(self) -> list[tuple[int, str]]:
        """(item, text) of training reviews, evenly spaced, at most MAX_COMPARED_REVIEWS."""
        assert self.texts is not None
        stride = max(1, -(-len(self.rows) // MAX_COMPARED_REVIEWS))
        positions = np.arange(0, len(self.rows), stride)
        items = np.searchsorted(self.bounds, positions, side="right") - 1
        return [
            (int(item), text)
            for item, position in zip(items, positions, strict=True)
            if (text := self.texts[self.rows[position]])
        ]

    def _traits(self, item: int) -> set[str]:
        """Traits of an item: its rarest distinctive words, attribute values and price band."""
        text = self.keyword_index.texts(item) or ""
        words = {word for word in affirmed_words(text) if self.is_distinctive(word)}
        found = set(
            sorted(words, key=lambda word: (self.keyword_index.document_frequencies[word], word))[
                :MAX_TRAITS
            ]
        )
        for name, values in self.keyword_index.attribute_values(item).items():
            found |= {f"{name}: {value.lower()}" for value in values}
        band = self._price_bands.get(item)
        return found if band is None else {*found, f"price: {band}"}

    @cached_property
    def _price_bands(self) -> dict[int, int]:
        """Item → its price quantile within its category."""
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
            if len(members) >= PRICE_BANDS:
                bounds = np.quantile(prices[members], np.arange(1, PRICE_BANDS) / PRICE_BANDS)
                bands = np.searchsorted(bounds, prices[members], side="right")
                found |= dict(zip(members.tolist(), bands.tolist(), strict=True))
        return found

    def _find_evidence(self, item: int) -> Evidence:
        values = [
            value
            for listed in self.keyword_index.attribute_values(item).values()
            for value in listed
        ]
        parts = [self.keyword_index.texts(item) or "", *values, *self.reviews(item)]
        implied = (self._implied.get(trait, frozenset()) for trait in self._traits(item))
        price = item_price(self.catalog, item)
        return read_evidence("\n".join(parts), frozenset().union(*implied), price)


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


def _lexicon_verdict(meaning: str, evidence: Evidence, negated: bool) -> Verdict:
    if meaning in evidence.meanings[negated]:
        return "supported"
    return "contradicts" if meaning in evidence.meanings[not negated] else "unsupported"


def unsupported_share(claims: Iterable[Sequence[Claim]]) -> float:
    """Unfaithfulness of many texts: the share of unsupported claims among all claims; 0 without claims."""
    verdicts = [claim.verdict for listed in claims for claim in listed]
    return 1 - verdicts.count("supported") / len(verdicts) if verdicts else 0.0
