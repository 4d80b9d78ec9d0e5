"""Groups of equal rows, and medians and ranks by group, with few arrays of all rows at once."""

import numpy as np
from numpy.typing import NDArray


def group_numbers(*keys: NDArray) -> NDArray[np.int64]:
    """A number for each row (n,), the same for rows that agree in every key (n,), in the keys' order."""
    order = np.lexsort(keys[::-1])
    changes = np.zeros(len(order), bool)
    for key in keys:
        changes[1:] |= np.diff(key[order]) != 0
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(changes)
    return found


def first_of_runs(values: NDArray) -> NDArray[np.int64]:
    """Where runs of equal values (n,) begin."""
    return np.flatnonzero(
        np.concatenate([np.ones(len(values[:1]), bool), values[1:] != values[:-1]])
    )


def distinct(values: NDArray) -> NDArray:
    """The different values of an array, ascending; sorting takes less memory than numpy.unique's table."""
    ordered = np.sort(values)
    return ordered[first_of_runs(ordered)]


def medians(values: NDArray[np.float64], groups: NDArray[np.integer]) -> NDArray[np.float64]:
    """The median (n,) of the group of each value (n,)."""
    order = np.lexsort((values, groups))
    starts = first_of_runs(groups[order])
    counts = np.diff(starts, append=len(order))
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    middle = (values[order[low]] + values[order[high]]) / 2
    found = np.empty(len(values))
    found[order] = np.repeat(middle, counts)
    return found


def mean_ranks(values: NDArray) -> NDArray[np.float64]:
    """The rank of each value (n,), equal values at the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    starts = first_of_runs(values[order])
    counts = np.diff(starts, append=len(order))
    found = np.empty(len(values))
    found[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return found


def spearman(left: NDArray, right: NDArray) -> float:
    """Spearman's rank correlation of two arrays (n,), ties by mean rank; 0 where one does not vary."""
    ranks = []
    for values in (left, right):
        ranks.append(mean_ranks(values))
        ranks[-1] -= ranks[-1].mean()
    scale = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / scale) if scale > 0 else 0.0
