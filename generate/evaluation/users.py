"""Draws the users a generator is scored on, and another user for each: the swapped-user control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split, Targets, target_rows
from generate.conditioning import Condition, Ranker, encode_histories
from generate.requests import GenerationRequest, HistoryPrefix


@dataclass(frozen=True)
class EvaluationUsers:
    """Test targets, one for each user, and another user for each as the control."""

    users: NDArray[np.integer]
    """User rows (num_users,)."""
    positions: NDArray[np.integer]
    """Positions of the targets in the users' interactions."""
    histories: Sequence[NDArray[np.integer]]
    """Item rows before each target, oldest first."""
    swapped: NDArray[np.int64]
    """Index of another user for each."""
    items: NDArray[np.integer]
    """Item rows of the targets: the true next items."""
    states: Mapping[Condition, Tensor] = field(repr=False)
    """float32 (num_users, width) under each condition."""
    prefixes: Mapping[Condition, Sequence[HistoryPrefix]] = field(repr=False)
    """The interactions that these states were computed from."""

    def __len__(self) -> int:
        return len(self.users)

    def first(self, count: int) -> "EvaluationUsers":
        """The first `count` users; their swapped users stay the same."""
        return EvaluationUsers(
            self.users[:count],
            self.positions[:count],
            self.histories[:count],
            self.swapped[:count],
            self.items[:count],
            {condition: states[:count] for condition, states in self.states.items()},
            {condition: prefixes[:count] for condition, prefixes in self.prefixes.items()},
        )

    def requests(
        self,
        condition: Condition,
        items: Sequence[int | None],
        seeds: Sequence[int],
        indices: Sequence[int] | None = None,
    ) -> list[GenerationRequest]:
        """Requests under a condition: for the users at `indices` (all by default), one item and seed each."""
        chosen = range(len(self)) if indices is None else indices
        states, prefixes = self.states[condition], self.prefixes[condition]
        return [
            GenerationRequest(states[index], item, seed, prefixes[index])
            for index, item, seed in zip(chosen, items, seeds, strict=True)
        ]


def sample_users(
    ranker: Ranker,
    catalog: Catalog,
    split: Split,
    num_users: int,
    seed: int = 0,
    batch_size: int = 256,
) -> EvaluationUsers:
    """Draws at most `num_users` users with a test target; raises VitrineError for fewer than two."""
    chosen = draw_targets(split, num_users, seed)
    if len(chosen) < 2:
        raise VitrineError(
            f"{catalog.name} has {len(split.test.first_per_user())} users with a test target; the "
            "swapped-user control needs two."
        )
    interactions = catalog.interactions
    histories = [chosen.history(interactions, index) for index in range(len(chosen))]
    own = encode_histories(ranker, histories, batch_size)
    swapped = draw_swapped_users(chosen.users, seed)
    items = np.asarray(interactions.items)[target_rows(interactions, chosen)]
    prefixes = [
        HistoryPrefix(int(user), len(history))
        for user, history in zip(chosen.users, histories, strict=True)
    ]
    return EvaluationUsers(
        chosen.users,
        chosen.positions,
        histories,
        swapped,
        items,
        {"own": own, "swapped": own[torch.from_numpy(swapped)], "none": own * 0},
        {
            "own": prefixes,
            "swapped": [prefixes[index] for index in swapped],
            "none": [HistoryPrefix()] * len(prefixes),
        },
    )


def draw_targets(split: Split, num_users: int, seed: int = 0) -> Targets:
    """The first test targets of at most `num_users` users; a smaller number draws the first of them."""
    targets = split.test.first_per_user()
    return targets.take(np.random.default_rng(seed).permutation(len(targets))[:num_users])


def draw_swapped_users(users: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """Indices (len(users),) of another user for each: the swapped-user control.

    A random derangement: no index maps to itself, nor to the same user again where `users` repeats and
    another user is available; each index is drawn exactly once. It is a random cycle, so that every
    other user is equally likely.
    """
    users = np.asarray(users)
    num_users = len(users)
    if num_users < 2:
        raise ValueError("the swapped-user control needs at least two users.")
    rng = np.random.default_rng(seed)
    swapped = np.empty(num_users, dtype=np.int64)
    cycle = rng.permutation(num_users)
    swapped[cycle] = np.roll(cycle, -1)
    for index in np.flatnonzero(users[swapped] == users):
        # Exchanging with another index repairs this one and must not break the other.
        for other in rng.permutation(num_users):
            gained, lost = users[swapped[other]], users[swapped[index]]
            if gained != users[index] and lost != users[other]:
                swapped[[index, other]] = swapped[[other, index]]
                break
    return swapped
