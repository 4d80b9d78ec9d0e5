"""Finds similar rows among millions without comparing all pairs: sorted windows over hashes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.hashing import splitmix64

WINDOW = 8
"""Neighbours in each sorted order that a row is compared with."""
ROTATIONS = 8
MOST_KEPT = 8_000_000
"""Candidate pairs that are held in memory."""
Pairs = NDArray[np.int64]
"""(p, 2): two rows each, the smaller first."""


def hamming_pairs(hashes: NDArray[np.uint64], most: int) -> Pairs:
    """Pairs of rows whose hashes (n, 2) of 128 bits differ in at most `most` bits.

    Rows are sorted by eight bands of shuffled bits in turn and compared with their nearest neighbours in
    each order, so the time is linear in n; near pairs agree in one band at least, with few exceptions.
    """
    order = np.random.default_rng(0).permutation(128)
    kept = _Candidates(len(hashes))
    for band in range(ROTATIONS):
        turned = np.roll(order, -16 * band)
        rows = np.lexsort((_pick(hashes, turned[64:]), _pick(hashes, turned[:64])))
        found = []
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            left, right = rows[:-step], rows[step:]
            bits = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1)
            near = bits <= most
            found.append(kept.codes_of(left[near], right[near]))
        kept.add(found)
    return distinct_pairs(kept.pairs())


class _Candidates:
    """Distinct pairs of rows, and how often each was added; beyond `MOST_KEPT` the rarest are dropped."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.codes, self.counts = np.empty(0, np.int64), np.empty(0, np.int64)

    def codes_of(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number (p,) for each pair."""
        return np.minimum(left, right) * self.num_rows + np.maximum(left, right)

    def add(self, found: list[NDArray[np.int64]]) -> None:
        if not found:
            return
        codes, counts = np.unique(np.concatenate(found), return_counts=True)
        codes, places = np.unique(np.concatenate([self.codes, codes]), return_inverse=True)
        weights = np.concatenate([self.counts, counts])
        self.counts = np.bincount(places, weights, len(codes)).astype(np.int64)
        self.codes = codes
        if len(codes) > MOST_KEPT:
            best = np.argsort(-self.counts, kind="stable")[:MOST_KEPT]
            self.codes, self.counts = codes[best], self.counts[best]

    def pairs(self) -> Pairs:
        """The pairs, those that were added most often first."""
        codes = self.codes[np.argsort(-self.counts, kind="stable")]
        return np.stack(np.divmod(codes, max(1, self.num_rows)), axis=1)


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
    kept = _Candidates(len(bands))
    for column in bands.T:
        rows = np.argsort(column, kind="stable")
        ordered = column[rows]
        found = []
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            same = ordered[:-step] == ordered[step:]
            found.append(kept.codes_of(rows[:-step][same], rows[step:][same]))
        kept.add(found)
    return kept.pairs()


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
