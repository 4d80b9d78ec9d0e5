"""The two times at which a temporal split cuts all histories, found chunk by chunk."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.interactions import CHUNK
from catalog.reorder import check_fractions


def choose_cuts(times: NDArray[np.int64], config: SplitConfig) -> tuple[int, int]:
    """The first times of validation and of test, with the nearest fractions of interactions after them.

    Equal times stay together. Raises VitrineError for impossible fractions and fewer than three times.
    """
    check_fractions(config)
    validation, test = config.validation_fraction, config.test_fraction
    earliest: list[int] = []
    while len(earliest) < 3:
        later = _extreme(
            times, np.min, lambda part: part > earliest[-1] if earliest else part == part
        )
        if later is None:
            raise VitrineError(
                f"all interactions happen at {len(earliest)} distinct times, and a temporal split "
                "needs three; set split.kind: leave-one-out."
            )
        earliest.append(later)
    latest = int(times.max())
    second = _nearest_cut(times, earliest[2], latest, lambda after: after - test)
    before = _extreme(times, np.max, lambda part: part < second)
    assert before is not None
    first = _nearest_cut(times, earliest[1], before, lambda after: after - test - validation)
    return first, second


def _nearest_cut(
    times: NDArray[np.int64], low: int, high: int, missing: Callable[[float], float]
) -> int:
    """The time from `low` to `high`, both of them among `times`, with the nearest share at or after it.

    `missing` gives what a share is above the fraction asked for. The share falls with the time, so the
    search halves the interval, and counts chunk by chunk: sorting would take as much memory again.
    """

    def excess(time: int) -> float:
        return missing(sum(np.count_nonzero(part >= time) for part in _parts(times)) / len(times))

    if excess(low) < 0:
        return low
    if excess(high) >= 0:
        return high
    below, above = low, high  # excess(below) >= 0 > excess(above)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if excess(middle) >= 0 else (below, middle)
    earlier = _extreme(times, np.max, lambda part: part <= below)
    later = _extreme(times, np.min, lambda part: part >= above)
    assert earlier is not None
    assert later is not None
    return earlier if abs(excess(earlier)) <= abs(excess(later)) else later


def _extreme(
    times: NDArray[np.int64],
    of: Callable[[NDArray[np.int64]], np.int64],
    chosen: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
) -> int | None:
    """The smallest or largest time for which `chosen` holds; None if it holds for none."""
    found = [of(part[mask]) for part in _parts(times) if (mask := chosen(part)).any()]
    return int(of(np.array(found))) if found else None


def _parts(times: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (times[start : start + CHUNK] for start in range(0, len(times), CHUNK))
