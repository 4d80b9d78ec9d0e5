"""Finds similar rows among millions without comparing all pairs: sorted windows over hashes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.hashing import splitmix64

WINDOW = 8
"""Neighbours in each sorted order that a row is compared with."""
ROTATIONS = 8
Pairs = NDArray[np.int64]
"""(p, 2): two rows each, the smaller first."""


def hamming_pairs(hashes: NDArray[np.uint64], most: int) -> Pairs:
    """Pairs of rows whose hashes (n, 2) of 128 bits differ in at most `most` bits.

    Rows are sorted by eight bands of shuffled bits in turn and compared with their nearest neighbours in
    each order, so the time is linear in n; near pairs agree in one band at least, with few exceptions.
    """
    order = np.random.default_rng(0).permutation(128)
    found = [np.empty((0, 2), np.int64)]
    for band in range(ROTATIONS):
        keys = [
            _pick(hashes, np.roll(order, -16 * band)[part]) for part in (slice(64), slice(64, 128))
        ]
        rows = np.lexsort((keys[1], keys[0]))
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            left, right = rows[:-step], rows[step:]
            bits = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1)
            near = bits <= most
            found.append(np.stack([left[near], right[near]], axis=1))
    return distinct_pairs(np.concatenate(found))


def _pick(hashes: NDArray[np.uint64], bits: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number (n,) of 64 of the 128 bits, the first of `bits` the highest."""
    key = np.zeros(len(hashes), np.uint64)
    one = np.uint64(1)
    for bit in bits.tolist():
        key = key << one | (hashes[:, bit // 64] >> np.uint64(bit % 64)) & one
    return key


def band_pairs(bands: NDArray[np.uint32]) -> Pairs:
    """Pairs of neighbours, at most `WINDOW` apart, among the rows of `bands` (n, num_bands) that share a
    band's value; those that share most bands first."""
    found = [np.empty((0, 2), np.int64)]
    for column in bands.T:
        rows = np.argsort(column, kind="stable")
        sorted_values = column[rows]
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            same = sorted_values[:-step] == sorted_values[step:]
            found.append(np.stack([rows[:-step][same], rows[step:][same]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    return pairs[np.argsort(-counts, kind="stable")]


def distinct_pairs(pairs: Pairs) -> Pairs:
    return np.unique(np.sort(pairs, axis=1), axis=0)


def minhash_bands(
    tokens: NDArray[np.uint64], owners: NDArray[np.int64], num_rows: int, bands: int, rows: int
) -> NDArray[np.uint32]:
    """Band values (num_rows, bands) of MinHash signatures of `rows` hashes for each band.

    tokens (t,): hashes of the elements; owners (t,): the set of each, ascending, none empty. Two sets of
    Jaccard similarity s share a band with probability s ** rows.
    """
    starts = np.searchsorted(owners, np.arange(num_rows))
    values = np.empty((num_rows, bands), np.uint32)
    for band in range(bands):
        mixed = np.zeros(num_rows, np.uint64)
        for row in range(rows):
            key = splitmix64(np.array([band * rows + row + 1], np.uint64))
            least = np.minimum.reduceat(splitmix64(tokens ^ key), starts)
            mixed = splitmix64(mixed ^ least)
        values[:, band] = (mixed >> np.uint64(32)).astype(np.uint32)
    return values


def in_chunks(pairs: Pairs, size: int = 10_000) -> Iterator[Pairs]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]
