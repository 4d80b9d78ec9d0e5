"""Finds similar rows among millions without comparing all pairs: sorted windows over hashes."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from catalog.doctor.groups import distinct, first_of_runs
from catalog.hashing import splitmix64

WINDOW = 8
"""Neighbours in each sorted order that a row is compared with."""
BLOCK = 1 << 18
"""Rows whose neighbours are looked at together."""
ROTATIONS = 8
MOST_KEPT = 4_000_000
"""Candidate pairs that are held in memory."""
TOKENS = 1 << 16
"""Elements of sets that are mixed together: they fit into a processor's cache."""
Pairs = NDArray[np.int64]
"""(p, 2): two rows each, the smaller first."""


def hamming_pairs(hashes: NDArray[np.uint64], most: int) -> Pairs:
    """Pairs of rows whose hashes (n, 2) of 128 bits differ in at most `most` bits.

    Rows are sorted by eight bands of shuffled bits in turn and compared with their nearest neighbours in
    each order, so the time is linear in n; near pairs agree in one band at least, with few exceptions.
    """
    order = np.random.default_rng(0).permutation(128)
    kept = _Candidates()
    for band in range(ROTATIONS):
        turned = np.roll(order, -16 * band)
        rows = np.lexsort((_pick(hashes, turned[64:]), _pick(hashes, turned[:64])))
        pairs = ((rows[left], rows[right]) for left, right in _neighbours(len(rows)))
        kept.add(
            _codes(left[near], right[near])
            for left, right in pairs
            if (near := np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1) <= most).any()
        )
    return distinct_pairs(kept.pairs())


def _neighbours(size: int) -> Iterator[tuple[slice, slice]]:
    """All pairs of places below `size` that are at most `WINDOW` apart, as two slices of equal length."""
    for start in range(0, size, BLOCK):
        for step in range(1, min(WINDOW, size - 1 - start) + 1):
            end = min(start + BLOCK, size - step)
            yield slice(start, end), slice(start + step, end + step)


def _codes(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number (p,) for each pair of rows, in the order of the smaller row."""
    return np.minimum(left, right) << 32 | np.maximum(left, right)


def _pairs_of(codes: NDArray[np.int64]) -> Pairs:
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)


class _Candidates:
    """Distinct pairs of rows, and how often each was added; beyond `MOST_KEPT` the rarest are dropped.

    Of equally rare ones those are kept whose number has the smallest hash: they are the same ones
    whenever pairs are added, so that their counts are right.
    """

    def __init__(self) -> None:
        self.codes, self.counts = np.empty(0, np.int64), np.empty(0, np.uint8)

    def add(self, found: Iterable[NDArray[np.int64]]) -> None:
        """Adds the numbers of pairs, all of them different."""
        codes = np.sort(_capped(found))
        places = np.searchsorted(self.codes, codes)
        known = places < len(self.codes)
        known[known] = self.codes[places[known]] == codes[known]
        self.counts[places[known]] += 1
        codes = codes[~known]
        del places
        counts = np.concatenate([self.counts, np.ones(len(codes), np.uint8)])
        codes = np.concatenate([self.codes, codes])
        if len(codes) > MOST_KEPT:
            kept = _most_counted(codes, counts)
            codes, counts = codes[kept], counts[kept]
        order = np.argsort(codes, kind="stable")
        self.codes, self.counts = codes[order], counts[order]

    def pairs(self) -> Pairs:
        """The pairs, those that were added most often first."""
        codes = self.codes[np.argsort(-self.counts.astype(np.int16), kind="stable")]
        return _pairs_of(codes)


def _capped(found: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All numbers, or the `MOST_KEPT` that have the smallest hashes, of any amount of them."""
    parts, size, limit = [np.empty(0, np.int64)], 0, np.uint64(2**64 - 1)
    for codes in found:
        if limit < 2**64 - 1:
            codes = codes[_hash(codes) < limit]
        parts.append(codes)
        size += len(codes)
        if size > MOST_KEPT + MOST_KEPT // 2:
            codes = np.concatenate(parts)
            hashes = _hash(codes)
            limit = np.partition(hashes, MOST_KEPT)[MOST_KEPT]
            parts, size = [codes[hashes < limit]], MOST_KEPT
    codes = np.concatenate(parts)
    return codes if len(codes) <= MOST_KEPT else codes[_smallest(codes, MOST_KEPT)]


def _hash(codes: NDArray[np.int64]) -> NDArray[np.uint64]:
    return splitmix64(codes.view(np.uint64))


def _smallest(codes: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which `most` numbers (n,) of more have the smallest hashes."""
    hashes = _hash(codes)
    return hashes < np.partition(hashes, most)[most]


def _most_counted(codes: NDArray[np.int64], counts: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which `MOST_KEPT` numbers (n,) of more have the largest counts (n,), and then the smallest hashes."""
    least = np.partition(counts, len(counts) - MOST_KEPT)[len(counts) - MOST_KEPT]
    kept = counts > least
    rest = np.flatnonzero(counts == least)
    kept[rest[_smallest(codes[rest], MOST_KEPT - int(kept.sum()))]] = True
    return kept


def _pick(hashes: NDArray[np.uint64], bits: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number (n,) of 64 of the 128 bits, the first of `bits` the highest."""
    key = np.zeros(len(hashes), np.uint64)
    one = np.uint64(1)
    for bit in bits.tolist():
        key = key << one | (hashes[:, bit // 64] >> np.uint64(bit % 64)) & one
    return key


def band_pairs(bands: Iterable[NDArray[np.uint32]]) -> Pairs:
    """Pairs of neighbours, at most `WINDOW` apart, among rows that share a value of a band; those that
    share most bands first. bands: the values (n,) of all rows, one band after the other."""
    kept = _Candidates()
    for values in bands:
        rows = np.argsort(values, kind="stable")
        ordered = values[rows]
        kept.add(
            _codes(rows[left][same], rows[right][same])
            for left, right in _neighbours(len(rows))
            if (same := ordered[left] == ordered[right]).any()
        )
    return kept.pairs()


def distinct_pairs(pairs: Pairs) -> Pairs:
    return _pairs_of(distinct(_codes(*pairs.T)))


def minhash_bands(
    tokens: NDArray[np.uint64], owners: NDArray[np.int64], num_rows: int, bands: int, rows: int
) -> NDArray[np.uint32]:
    """Band values (bands, num_rows) of MinHash signatures of `rows` hashes for each band.

    tokens (t,): hashes of the elements; owners (t,): the set of each, ascending, none empty. Two sets of
    Jaccard similarity s share a band with probability s ** rows.
    """
    starts = np.searchsorted(owners, np.arange(num_rows))
    values = np.empty((bands, num_rows), np.uint32)
    for first, end in _row_blocks(starts):
        part = tokens[starts[first] : starts[end] if end < num_rows else len(tokens)]
        inside = starts[first:end] - starts[first]
        for band in range(bands):
            mixed = np.zeros(end - first, np.uint64)
            for row in range(rows):
                key = splitmix64(np.array([band * rows + row + 1], np.uint64))
                least = np.minimum.reduceat(splitmix64(part ^ key), inside)
                mixed = splitmix64(mixed ^ least)
            values[band, first:end] = (mixed >> np.uint64(32)).astype(np.uint32)
    return values


def _row_blocks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, end) of the sets that have about `TOKENS` elements together; starts (n,): of their elements."""
    firsts = [*first_of_runs(starts // TOKENS).tolist(), len(starts)]
    yield from pairwise(firsts)


def in_chunks(pairs: Pairs, size: int = 10_000) -> Iterator[Pairs]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]
