"""Intervals by bootstrap over people, and tests, paired where two systems saw the same people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import NotFinite

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % percentile-bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def _resampled_means(columns: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means over resampled people of `columns` (people, systems): (RESAMPLES, systems)."""
    rng = np.random.default_rng(seed)
    people = len(columns)
    means = np.empty((RESAMPLES, columns.shape[1]))
    for row in range(RESAMPLES):
        counts = np.bincount(rng.integers(people, size=people), minlength=people)
        means[row] = counts @ columns / people
    return means


def _interval(value: float, samples: NDArray[np.float64]) -> Interval:
    # An order statistic: interpolating between infinite ratios would give nan.
    low, high = np.percentile(samples, [2.5, 97.5], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))


def _finite(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """`values` as float64; NotFinite where there are none, or one is not: no mean follows from them."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        raise NotFinite("there are no values to average; bring more users or another split")
    strange = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))
    if len(strange):
        raise NotFinite(
            f"{len(strange):,} of {len(found):,} values to be averaged are nan or infinite, the first that "
            f"of user {strange[0] + 1} in their order; look at what was measured of that user"
        )
    return found


def mean_interval(values: NDArray[np.floating], seed: int = 0) -> Interval:
    """Mean over users of one figure each, (users,); NotFinite where one is not."""
    column = _finite(values)[:, None]
    return _interval(column.mean(), _resampled_means(column, seed)[:, 0])


def difference_interval(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], seed: int = 0
) -> Interval:
    """Mean of ours − theirs over the same people, (people,) each."""
    return mean_interval(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), seed)


def ratio_interval(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], seed: int = 0
) -> Interval:
    """mean(ours) / mean(theirs) over the same people; infinite where theirs is 0.

    Where both are 0 the ratio is nan and says nothing: its interval goes from 0 to infinity.
    """
    columns = _finite(np.stack([ours, theirs], axis=1))
    means = _resampled_means(columns, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = means[:, 0] / means[:, 1]
        value = columns[:, 0].mean() / columns[:, 1].mean()
    low = _interval(float(value), np.nan_to_num(samples, nan=0.0, posinf=np.inf)).low
    return replace(
        _interval(float(value), np.nan_to_num(samples, nan=np.inf, posinf=np.inf)), low=low
    )


FLIPS = 10_000


def sign_flip_p(differences: NDArray[np.floating], seed: int = 0) -> float:
    """Two-sided p of a paired randomisation test (Fisher, 1935), (people,) differences.

    Under the null hypothesis each difference is as likely to have the other sign.
    """
    moved = np.asarray(differences, np.float64)
    moved = moved[moved != 0]
    if not len(moved):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(moved.sum()) * (1 - 1e-12)  # sums in another order differ in the last bits
    beyond = 0
    at_once = max(1, min(FLIPS, 2**22 // len(moved)))
    for start in range(0, FLIPS, at_once):
        rows = min(at_once, FLIPS - start)
        signs = rng.integers(0, 2, size=(rows, len(moved)), dtype=np.int8) * 2.0 - 1.0
        beyond += int((np.abs(signs @ moved) >= observed).sum())
    return (1 + beyond) / (1 + FLIPS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the number of hypotheses, step down (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    worst = 0.0
    for place, row in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[row]))
        adjusted[row] = worst
    return adjusted.tolist()
