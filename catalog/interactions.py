"""Users' histories of items, end to end in arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


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
