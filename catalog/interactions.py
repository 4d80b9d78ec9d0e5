"""Users' histories of items, end to end in arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.memory import release_pages

CHUNK = 1 << 22
"""Interactions that are looked at together, where a result needs no more of them at once."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """All users' histories, concatenated (CSR): ordered by user, time and the tie rule."""

    offsets: NDArray[np.int64]
    """(num_users + 1,): user u's rows are offsets[u] … offsets[u + 1]."""
    items: NDArray[np.int32]
    """(num_interactions,): rows of the items table."""
    times: NDArray[np.int64]
    """(num_interactions,): seconds since 1970 where the column held dates, else its own numbers."""
    reviews: Sequence[str | None] | None = None
    """(num_interactions,): reviews, each read on access; None without such a column."""
    ratings: NDArray[np.float32] | None = None
    """(num_interactions,); None where there is no such column."""
    split_labels: pa.ChunkedArray | None = None
    """(num_interactions,): the subset of a given split that each belongs to, as the table names it."""

    def __len__(self) -> int:
        return len(self.items)

    def history(self, user: int) -> NDArray[np.int32]:
        """The items of one user, oldest first: int32 (length,)."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """(users, rows): all users in order, as many together as have CHUNK interactions, at least one.

        What was read of memory-mapped arrays leaves memory after each chunk.
        """
        first, last = 0, len(self.offsets) - 1
        while first < last:
            reached = (
                int(np.searchsorted(self.offsets, self.offsets[first] + CHUNK, side="right")) - 1
            )
            end = min(max(reached, first + 1), last)
            yield slice(first, end), slice(int(self.offsets[first]), int(self.offsets[end]))
            self.release()
            first = end

    def release(self) -> None:
        """Lets go of memory that only mirrors the files."""
        for array in (self.items, self.times, self.ratings):
            if array is not None:
                release_pages(array)

    def positions(self, users: slice) -> NDArray[np.int64]:
        """Of each interaction of some users its position in the user's own history."""
        starts = self.offsets[users]
        lengths = self.offsets[users.start + 1 : users.stop + 1] - starts
        return np.arange(starts[0], starts[0] + lengths.sum()) - np.repeat(starts, lengths)
