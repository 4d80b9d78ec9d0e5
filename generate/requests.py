"""Generation requests: one text or image each, conditioned on a user and an item.

The command line, batch jobs and evaluation all build these requests and pass them to the same text
generator or image generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from generate.conditioning import Ranker


@dataclass(frozen=True)
class HistoryPrefix:
    """The first interactions of a user: their history before a point in time."""

    user: int | None = None
    """Row of the user; None: unconditional."""
    length: int = 0
    """Number of interactions, from the oldest on."""

    def items(self, catalog: Catalog) -> NDArray[np.integer]:
        """Item rows, oldest first."""
        if self.user is None:
            return np.empty(0, dtype=np.int32)
        return catalog.interactions.history(self.user)[: self.length]


@dataclass(frozen=True)
class GenerationRequest:
    """One text or image to generate."""

    state: Tensor
    """float32 (width,): the user state; zeros: unconditional."""
    item: int | None
    """Row of the item; None: no item is given."""
    seed: int
    """The same request with the same seed gives the same output."""
    prefix: HistoryPrefix = HistoryPrefix()
    """The interactions that `state` was computed from."""
    rank: int = 0
    """Position of the item in the user's ranking, 0 for the best."""


def user_requests(
    catalog: Catalog, ranker: Ranker, user: str | None, item: str | None, seeds: Sequence[int]
) -> list[GenerationRequest]:
    """Requests for one user and item by their ids, either of which may be None; one for each seed.

    Raises VitrineError for ids that the catalog lacks.
    """
    prefix = HistoryPrefix()
    if user is not None:
        row = catalog.user_index(user)
        prefix = HistoryPrefix(row, len(catalog.interactions.history(row)))
    item_row = None if item is None else catalog.item_index(item)
    state = ranker.user_states([prefix.items(catalog)])[0]
    return [GenerationRequest(state, item_row, seed, prefix) for seed in seeds]


def stack_states(requests: Sequence[GenerationRequest]) -> Tensor:
    """User states of requests: (requests, width)."""
    return torch.stack([request.state for request in requests])


def stack_item_vectors(requests: Sequence[GenerationRequest], ranker: Ranker) -> Tensor:
    """Item vectors of requests, (requests, width); zeros where no item is given."""
    vectors = np.zeros((len(requests), ranker.width), dtype=np.float32)
    given = {row: request.item for row, request in enumerate(requests) if request.item is not None}
    if given:
        vectors[list(given)] = ranker.item_vectors[list(given.values())]
    return torch.from_numpy(vectors)
