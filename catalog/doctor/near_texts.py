"""Finds texts that differ in a few words: MinHash over words and word pairs, then exact Jaccard."""

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.doctor.context import Context, blocks
from catalog.doctor.finding import Finding
from catalog.doctor.groups import distinct, first_of_runs
from catalog.doctor.similar import band_pairs, distinct_pairs, minhash_bands
from catalog.doctor.word_sets import jaccard, shingles
from catalog.progress import track

LEAST_JACCARD = 0.65
BANDS, BAND_ROWS = 16, 3
"""At the least Jaccard, 99 of 100 pairs share a band."""
MOST_VERIFIED = 2_000_000
"""Candidate pairs that are compared exactly, those that share most bands first."""
BYTES = 1 << 22
"""Texts that are split into words together have so many bytes, or are one."""
PAIR_CHARACTERS = 1 << 24
"""Pairs whose texts are compared together have about so many characters: each time reads the whole table."""


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
            for first, part in blocks(texts, BYTES):
                numbers, tokens, owners, whole = shingles(part)
                rows.append((start + first + numbers).astype(np.int32))
                digests.append(whole)
                values = minhash_bands(tokens, owners, len(numbers), BANDS, BAND_ROWS)
                for file, band in zip(files, values, strict=True):
                    file.write(band.tobytes())
    return np.concatenate(rows), np.concatenate(digests), paths


def _among(values: NDArray[np.uint64], chosen: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values (n,) are one of those chosen (m,), ascending."""
    places = np.searchsorted(chosen, values)
    found = places < len(chosen)
    found[found] = chosen[places[found]] == values[found]
    return found


def _verified(context: Context, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs (p, 2) of items whose sets of words and word pairs are alike enough."""
    found = [np.empty((0, 2), np.int64)]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # so that a chunk reads few texts twice
    read = np.cumsum(context.text_lengths[pairs].sum(axis=1))
    bounds = [*first_of_runs(read // PAIR_CHARACTERS).tolist(), len(pairs)]
    for first, end in track(list(pairwise(bounds)), "Comparing similar texts"):
        some = pairs[first:end]
        items, places = np.unique(some, return_inverse=True)
        _, tokens, owners, _ = shingles(context.texts_of(items))
        near = jaccard(tokens, owners, places.reshape(-1, 2)) >= LEAST_JACCARD
        found.append(some[near])
    return np.concatenate(found)


CHECKS = (near_duplicate_texts,)
