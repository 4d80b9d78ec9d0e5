"""Draws the users a generator is scored on, and another user for each: the swapped-user control."""

import numpy as np
from numpy.typing import NDArray


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
