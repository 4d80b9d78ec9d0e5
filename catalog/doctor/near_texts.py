"""Finds texts that differ in a few words: MinHash over words and word pairs, then exact Jaccard."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import Context, join_texts
from catalog.doctor.finding import Finding
from catalog.doctor.similar import band_pairs, distinct_pairs, in_chunks, minhash_bands
from catalog.hashing import hash_ids, splitmix64

MIN_WORDS = 8
LEAST_JACCARD = 0.65
BANDS, BAND_ROWS = 16, 3
"""At the least Jaccard, 99 of 100 pairs share a band."""
MOST_VERIFIED = 2_000_000
"""Candidate pairs that are compared exactly, those that share most bands first."""


def near_duplicate_texts(context: Context) -> Iterable[Finding]:
    """Texts of at least `MIN_WORDS` words that differ in a few of them; equal texts are left out."""
    rows, bands, digests = [], [], []
    for start, texts in context.text_batches():
        numbers, tokens, owners, whole = shingles(texts)
        if len(numbers):
            rows.append(start + numbers)
            bands.append(minhash_bands(tokens, owners, len(numbers), BANDS, BAND_ROWS))
            digests.append(whole)
    if not rows:
        return []
    items = np.concatenate(rows)
    _, kept, groups = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
    candidates = kept[band_pairs(np.concatenate(bands)[kept])]  # one of each text
    near = distinct_pairs(_verified(context, items[candidates[:MOST_VERIFIED]]))
    least = " at least" if len(candidates) > MOST_VERIFIED else ""
    sentence = f"{{n}} items{least} have a text that differs from another's in a few words"
    same = items[np.isin(groups, groups[np.searchsorted(items, near)])]
    first = near[:1].reshape(-1)
    return context.found("near-duplicate-texts", same, sentence, first=first)


def shingles(
    texts: pa.Array,
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """(rows (n,) of texts with enough words, hashes (t,) of their words and word pairs, the place in rows
    of each hash (t,), ascending, and a hash (n,) of each text)."""
    words = pc.split_pattern_regex(
        pc.utf8_trim_whitespace(
            pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\p{L}\p{N}]+", " ")
        ),
        " ",
    )
    counts = pc.list_value_length(words).to_numpy()
    rows = np.flatnonzero(counts >= MIN_WORDS)
    if not len(rows):
        none = np.empty(0, np.uint64)
        return rows, none, np.empty(0, np.int64), none
    words = words.take(pa.array(rows))
    encoded = pc.list_flatten(words).dictionary_encode()
    hashes = hash_ids(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    owners = np.repeat(np.arange(len(rows)), counts[rows])
    inside = owners[1:] == owners[:-1]
    pairs = splitmix64(hashes[:-1] ^ splitmix64(hashes[1:]))[inside]
    tokens = np.concatenate([hashes, pairs])
    whose = np.concatenate([owners, owners[1:][inside]])
    order = np.argsort(whose, kind="stable")
    whole = hash_ids(texts.take(pa.array(rows)).to_pylist())
    return rows, tokens[order], whose[order], whole


def _verified(context: Context, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs (p, 2) of items whose sets of words and word pairs are alike enough."""
    found = [np.empty((0, 2), np.int64)]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # so that a chunk reads few texts twice
    for some in in_chunks(pairs, 50_000):
        items, places = np.unique(some, return_inverse=True)
        tokens, owners = _tokens_of(context, items)
        ends = np.searchsorted(owners, np.arange(len(items) + 1))
        sets = [np.unique(tokens[ends[n] : ends[n + 1]]) for n in range(len(items))]
        places = places.reshape(-1, 2)
        near = [jaccard(sets[left], sets[right]) >= LEAST_JACCARD for left, right in places]
        found.append(some[np.array(near, bool)])
    return np.concatenate(found)


def _tokens_of(
    context: Context, items: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    columns = [
        context.column(name).take(pa.array(items)).cast(pa.large_string()).combine_chunks()
        for name in ("title", "text")
    ]
    _, tokens, owners, _ = shingles(join_texts(*columns))
    return tokens, owners


def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Share of the elements of two sorted sets, without duplicates, that are in both."""
    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / max(1, len(left) + len(right) - both)


CHECKS = (near_duplicate_texts,)
