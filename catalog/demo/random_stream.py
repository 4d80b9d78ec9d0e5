"""Random numbers that are the same on every machine: integers only, one stream for each named purpose."""

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Choice = TypeVar("Choice")


class RandomStream:
    """A random stream for each (seed, purpose), so that another draw from one does not change the others.

    Only raw bits of Python's Mersenne twister are used: derived draws, and NumPy's, may change between
    versions.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._bits = random.Random(f"{seed}/{purpose}").getrandbits

    def below(self, limit: int) -> int:
        """A uniform integer from 0 to limit - 1."""
        return self._bits(64) % limit

    def between(self, low: int, high: int) -> int:
        """A uniform integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def one_of(self, choices: Sequence[Choice]) -> Choice:
        return choices[self.below(len(choices))]

    def some_of(self, choices: Sequence[Choice], count: int) -> list[Choice]:
        """`count` distinct choices in random order."""
        return self.shuffled(choices)[:count]

    def shuffled(self, choices: Sequence[Choice]) -> list[Choice]:
        rest = list(choices)
        for last in range(len(rest) - 1, 0, -1):
            other = self.below(last + 1)
            rest[last], rest[other] = rest[other], rest[last]
        return rest

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def weighted(self, weights: NDArray[np.int64]) -> int:
        """An index with probability proportional to its integer weight; `weights` (n,), sum above 0."""
        reached = np.cumsum(weights)
        return int(np.searchsorted(reached, self.below(int(reached[-1])), side="right"))
