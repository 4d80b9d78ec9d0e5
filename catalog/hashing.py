"""64-bit hashes of ids and texts, the same on every machine and in every order of rows."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash64(content: bytes) -> int:
    """BLAKE2b with a digest of 64 bits, as a big-endian integer."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def hash_ids(ids: Iterable[str], *, key: bytes = b"") -> NDArray[np.uint64]:
    """A 64-bit hash of each id, uint64 (num_ids,); `key` makes an independent hash function."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele et al., 2014): mixes every bit into all others."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values
