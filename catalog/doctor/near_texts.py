"""Finds texts that differ in a few words: MinHash over words and word pairs, then exact Jaccard."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import Context
from catalog.doctor.finding import Finding
from catalog.doctor.groups import distinct, first_of_runs
from catalog.doctor.similar import band_pairs, distinct_pairs, minhash_bands
from catalog.hashing import hash_ids, splitmix64
from catalog.progress import track

MIN_WORDS = 8
LEAST_JACCARD = 0.65
BANDS, BAND_ROWS = 16, 3
"""At the least Jaccard, 99 of 100 pairs share a band."""
MOST_VERIFIED = 2_000_000
"""Candidate pairs that are compared exactly, those that share most bands first."""
SET_BITS = 40
"""Bits of an element's hash that sets are compared by; the others number the sets."""
BYTES = 1 << 22
"""Texts that are split into words together have so many bytes, or are one."""


def near_duplicate_texts(context: Context) -> Iterable[Finding]:
    """Texts of at least `MIN_WORDS` words that differ in a few of them; equal texts are left out."""
    items, digests, bands = _band_files(context)
    order = np.argsort(digests, kind="stable").astype(np.int32)
    kept = order[first_of_runs(digests[order])]  # one of each text
    del order
    shown = track(bands, "Comparing texts")
    candidates = band_pairs(np.fromfile(path, np.uint32)[kept] for path in shown)
    least = " at least" if len(candidates) > MOST_VERIFIED else ""
    pairs = items[kept[candidates[:MOST_VERIFIED]]].astype(np.int64)
    del candidates, kept
    near = distinct_pairs(_verified(context, pairs))
    sentence = f"{{n}} items{least} have a text that differs from another's in a few words"
    named = distinct(digests[np.searchsorted(items, near.reshape(-1).astype(np.int32))])
    first = near[:1].reshape(-1)
    same = items[_among(digests, named)]
    return context.found("near-duplicate-texts", same, sentence, first=first)


def _band_files(context: Context) -> tuple[NDArray[np.int32], NDArray[np.uint64], list[Path]]:
    """(the items (n,) whose texts have enough words, a hash (n,) of each text, a file for each band, with its
    values uint32 (n,) of them)."""
    rows, digests = [np.empty(0, np.int32)], [np.empty(0, np.uint64)]
    paths = [context.folder / f"band-{band}" for band in range(BANDS)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for start, texts in context.text_batches():
            for first, part in _blocks(texts):
                numbers, tokens, owners, whole = shingles(part)
                rows.append((start + first + numbers).astype(np.int32))
                digests.append(whole)
                values = minhash_bands(tokens, owners, len(numbers), BANDS, BAND_ROWS)
                for file, band in zip(files, values, strict=True):
                    file.write(band.tobytes())
    return np.concatenate(rows), np.concatenate(digests), paths


def _blocks(texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """(place of the first, texts), about `BYTES` at a time."""
    read = np.cumsum(pc.binary_length(texts).to_numpy())
    for first, end in pairwise([*first_of_runs(read // BYTES).tolist(), len(texts)]):
        yield first, texts.slice(first, end - first)


def _among(values: NDArray[np.uint64], chosen: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values (n,) are one of those chosen (m,), ascending."""
    places = np.searchsorted(chosen, values)
    found = places < len(chosen)
    found[found] = chosen[places[found]] == values[found]
    return found


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


def _verified(context: Context, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs (p, 2) of items whose sets of words and word pairs are alike enough."""
    found = [np.empty((0, 2), np.int64)]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # so that a chunk reads few texts twice
    read = np.cumsum(context.text_lengths[pairs].sum(axis=1))
    bounds = [*first_of_runs(read // BYTES).tolist(), len(pairs)]
    for first, end in track(list(pairwise(bounds)), "Comparing similar texts"):
        some = pairs[first:end]
        items, places = np.unique(some, return_inverse=True)
        _, tokens, owners, _ = shingles(context.texts_of(items))
        near = jaccard(tokens, owners, places.reshape(-1, 2)) >= LEAST_JACCARD
        found.append(some[near])
    return np.concatenate(found)


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


CHECKS = (near_duplicate_texts,)
