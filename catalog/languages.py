"""Recognizes the language of texts by their letters and most frequent words, without a model."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.frequent_words import frequent_words

LANGUAGES = {
    "Latin": "ca cs da de en es fi fr hr hu id is it lt lv ms nb nl pl pt ro sk sl sv tl tr vi",
    "Cyrillic": "bg mk ru uk",
    "Arabic": "ar fa ur",
    "Han": "ja zh",
    "Kana": "ja",
    "Hangul": "ko",
    "Greek": "el",
    "Hebrew": "he",
    "Thai": "th",
    "Devanagari": "hi",
    "Bengali": "bn",
    "Tamil": "ta",
    "Telugu": "te",
    "Georgian": "ka",
    "Armenian": "hy",
    "Ethiopic": "am",
    "Khmer": "km",
}
"""Script → languages that are written in it; letters of others than Latin speak against all others."""
CODES = tuple(dict.fromkeys(" ".join(LANGUAGES.values()).split()))
"""ISO 639-1 codes of the languages that are distinguished."""
SCRIPTS = {name: codes.split() for name, codes in LANGUAGES.items() if name != "Latin"}
PATTERNS = {name: rf"\p{{{name}}}" for name in SCRIPTS} | {"Kana": r"[\p{Hiragana}\p{Katakana}]"}
READ = 1_000
"""Characters at the beginning of a text that are read."""
NAMES = 0.25
"""Share of letters of another script from which on words in Latin letters are taken for names."""
HAN_ALONE = 0.5
"""log10 by which a Chinese character in a text without kana speaks against Japanese."""
MARGIN, LEAST = 5.0, 4
"""log10 of how much likelier a language must be, and how many words or letters must say so."""


@dataclass(frozen=True)
class Likelihoods:
    """What texts say of their language."""

    scores: NDArray[np.float32]
    """(n, len(CODES)) log10 of the likelihood of each language, up to one number for each text"""
    evidence: NDArray[np.int64]
    """(n,) known words, and letters of other scripts than Latin"""

    def decided(self) -> NDArray[np.int64]:
        """(n,) place in CODES of the language that is far likelier than all others; -1 without one."""
        order = np.argsort(-self.scores, axis=1, kind="stable")[:, :2]
        first, second = np.take_along_axis(self.scores, order, axis=1).T
        return np.where(self._is_clear(first, second), order[:, 0], -1)

    def apart_from(self, codes: Collection[str]) -> NDArray[np.int8]:
        """(n,) 1: the text is in another language than these; 0: in one of these; -1: undecided."""
        wanted = np.isin(CODES, list(codes))
        inside = self.scores[:, wanted].max(axis=1)
        outside = self.scores[:, ~wanted].max(axis=1, initial=-np.inf)
        kept = np.where(self._is_clear(inside, outside), 0, -1)
        return np.where(self._is_clear(outside, inside), 1, kept).astype(np.int8)

    def _is_clear(self, one: NDArray, other: NDArray) -> NDArray[np.bool_]:
        return (one - other >= MARGIN) & (self.evidence >= LEAST)


def likelihoods(given: pa.Array | pa.ChunkedArray) -> Likelihoods:
    """The likelihood of each language for each text (n,); null is a text without letters."""
    texts = pc.fill_null(_whole(given).cast(pa.large_string()), "")
    texts = pc.utf8_lower(pc.utf8_slice_codeunits(texts, 0, READ))
    scores = np.zeros((len(texts), len(CODES)), np.float32)
    evidence = np.zeros(len(texts), np.int64)
    rows = np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False))
    if len(rows):
        some = texts.take(pa.array(rows))
        scores[rows], evidence[rows] = _by_script(some)
        letters = pc.count_substring_regex(some, r"\p{L}").to_numpy(zero_copy_only=False)
        mask = np.zeros(len(texts), np.bool_)
        mask[rows[(evidence[rows] >= LEAST) & (evidence[rows] >= NAMES * letters)]] = True
        alone = pc.replace_substring_regex(texts.filter(pa.array(mask)), r"\p{Latin}+", " ")
        texts = pc.replace_with_mask(texts, pa.array(mask), alone)
    _add_words(texts, scores, evidence)
    return Likelihoods(scores, evidence)


def _by_script(texts: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What letters of other scripts than Latin say, and how many there are."""
    scores = np.zeros((len(texts), len(CODES)), np.float32)
    counts = {
        script: pc.count_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
        for script, pattern in PATTERNS.items()
    }
    for script, codes in SCRIPTS.items():
        scores[:, ~np.isin(CODES, codes)] -= counts[script][:, None]
    alone = np.where(counts["Kana"] == 0, counts["Han"], 0)
    scores[:, CODES.index("ja")] -= HAN_ALONE * alone
    return scores, np.sum(list(counts.values()), axis=0)


def _add_words(texts: pa.Array, scores: NDArray[np.float32], evidence: NDArray[np.int64]) -> None:
    """Adds what known words say, each word of a text once."""
    known, table = frequent_words(CODES)
    split = pc.split_pattern_regex(texts, r"[^\p{L}\p{M}]+")
    found = pc.index_in(split.flatten(), value_set=known)
    owners = pc.list_parent_indices(split).filter(found.is_valid()).to_numpy()
    pairs = np.unique(owners.astype(np.int64) * len(known) + found.drop_null().to_numpy())
    owners, words = np.divmod(pairs, len(known))
    evidence += np.bincount(owners, minlength=len(texts))
    if len(owners):
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        scores[owners[starts]] += np.add.reduceat(table[words], starts, axis=0)


def _whole(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
