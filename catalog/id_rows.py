"""Finds the rows of ids in a column of millions, by hashes: 12 bytes for each row."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.hashing import hash_ids
from catalog.memory import release_buffers

BATCH = 65_536
"""Ids that are hashed at a time."""


class IdRows:
    """The row of each of `ids`, which are distinct; null where there is none.

    Ids are compared by 64 bits of BLAKE2b: of ten million, one in a trillion unknown ones would be found.
    Raises ValueError where two of the ids have one hash.
    """

    def __init__(self, ids: pa.ChunkedArray) -> None:
        hashes = np.empty(len(ids), np.uint64)
        missing = np.zeros(len(ids), np.bool_)
        for start, end in pairwise([*range(0, len(ids), BATCH), len(ids)]):
            part = ids.slice(start, end - start)
            hashes[start:end] = hash_ids(text or "" for text in part.to_pylist())
            missing[start:end] = part.is_null().to_numpy(zero_copy_only=False)
            release_buffers(*part.chunks)
        order = np.argsort(hashes).astype(np.int32)
        if missing.any():
            order = order[~missing[order]]
        self.hashes, self.rows = hashes[order], order
        if (self.hashes[1:] == self.hashes[:-1]).any():
            raise ValueError("two ids of the column are equal, or have one hash")

    def __call__(self, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """The row (n,) of each id (n,); -1 for null, and where there is none."""
        if isinstance(ids, pa.ChunkedArray):
            parts = [np.empty(0, np.int32), *map(self, ids.chunks)]
            return np.concatenate(parts)
        encoded = ids.dictionary_encode()
        found = self._rows_of(encoded.dictionary.to_pylist())
        places = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
        return np.append(found, np.int32(-1))[places]

    def _rows_of(self, ids: list[str]) -> NDArray[np.int32]:
        if not len(self.rows):
            return np.full(len(ids), -1, np.int32)
        wanted = hash_ids(ids)
        places = np.minimum(np.searchsorted(self.hashes, wanted), len(self.rows) - 1)
        return np.where(self.hashes[places] == wanted, self.rows[places], np.int32(-1))
