"""The words and word pairs of texts as sets of hashes, and how alike two such sets are."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.doctor.arrow_compute import pc
from catalog.doctor.groups import first_of_runs
from catalog.hashing import hash_ids, splitmix64

MIN_WORDS = 8
"""Words of a text that is looked at, at least."""
SET_BITS = 40
"""Bits of an element's hash that sets are compared by; the others number the sets."""


def shingles(
    texts: pa.Array,
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """(rows (n,) of texts with enough words, hashes (t,) of their words and word pairs, the place in rows
    of each hash (t,), ascending, and a hash (n,) of each text)."""
    words = pc.split_pattern(
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


def jaccard(
    tokens: NDArray[np.uint64], owners: NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of pairs (p, 2) of sets the share of their elements that are in both (p,).

    tokens (t,): hashes of the elements; owners (t,): the set of each.
    """
    keys = np.sort(owners.astype(np.uint64) << SET_BITS | tokens >> (64 - SET_BITS))
    keys = keys[first_of_runs(keys)]
    ends = np.searchsorted(keys >> SET_BITS, np.arange(pairs.max(initial=-1) + 2, dtype=np.uint64))
    sizes = np.diff(ends)[pairs]
    counts = sizes.reshape(-1)
    # All elements of all pairs, one set after the other: those of both stand twice.
    offsets = ends[pairs.reshape(-1)] - (np.cumsum(counts) - counts)
    elements = keys[np.arange(counts.sum()) + np.repeat(offsets, counts)] & (2**SET_BITS - 1)
    whose = np.repeat(np.arange(len(pairs), dtype=np.uint64), sizes.sum(axis=1))
    keys = np.sort(whose << SET_BITS | elements)
    twice = keys[1:][keys[1:] == keys[:-1]] >> SET_BITS
    both = np.bincount(twice.astype(np.int64), minlength=len(pairs))
    return both / np.maximum(1, sizes.sum(axis=1) - both)
