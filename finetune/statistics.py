"""Bootstrap intervals over users; intervals and tests over users and seeds by variance components."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import NonFiniteError
from finetune.student_t import critical_t, two_sided_p

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; by default of the percentile bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def _resampled_means(columns: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of `columns` (users, systems) over bootstrap resamples of users: (NUM_RESAMPLES, systems)."""
    rng = np.random.default_rng(seed)
    num_users = len(columns)
    means = np.empty((NUM_RESAMPLES, columns.shape[1]))
    for row in range(NUM_RESAMPLES):
        counts = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        means[row] = counts @ columns / num_users
    return means


def _interval(value: float, samples: NDArray[np.float64]) -> Interval:
    # An order statistic: interpolating between infinite ratios would give nan.
    low, high = np.percentile(samples, [2.5, 97.5], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))


def _finite(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """`values` as float64; NonFiniteError if there are none or one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise NonFiniteError("there are no values to average; bring more users or another split")
    nonfinite = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if len(nonfinite):
        raise NonFiniteError(
            f"{len(nonfinite):,} of {len(array):,} values to be averaged are nan or infinite, the first that "
            f"of user {nonfinite[0] + 1} in their order; look at what was measured of that user"
        )
    return array


def mean_interval(values: NDArray[np.floating], seed: int = 0) -> Interval:
    """Mean of one value per user, (users,), with its bootstrap interval; NonFiniteError as `_finite`."""
    column = _finite(values)[:, None]
    return _interval(column.mean(), _resampled_means(column, seed)[:, 0])


def difference_interval(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], seed: int = 0
) -> Interval:
    """Mean of ours − theirs over the same users, (users,) each, with its bootstrap interval."""
    return mean_interval(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), seed)


def ratio_interval(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], seed: int = 0
) -> Interval:
    """mean(ours) / mean(theirs) over the same users with its bootstrap interval; infinite if theirs is 0.

    If both are 0 the ratio is nan, and its interval goes from 0 to infinity.
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


SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, over users and seeds, both random effects."""

    value: float
    error: float
    """Its standard error; infinite with a single user."""
    degrees_of_freedom: float
    """Degrees of freedom of the error."""

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the value is 0, by Student's t."""
        if self.error == 0:  # the same for every user in every training
            return float(self.value == 0)
        return two_sided_p(self.value / self.error, self.degrees_of_freedom)

    @property
    def interval(self) -> Interval:
        """The 95 % interval by Student's t."""
        reach = (
            critical_t(SIGNIFICANCE_LEVEL, self.degrees_of_freedom) * self.error
            if self.error
            else 0.0
        )
        return Interval(self.value, self.value - reach, self.value + reach)


def mean_over_seeds(runs: NDArray[np.floating]) -> Interval:
    """Mean of `runs` (seeds, users) with an interval over users and, with two or more seeds, over seeds."""
    return _crossed([(1.0, runs)]).interval


def difference_over_seeds(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Estimate:
    """Mean of ours − theirs, (seeds, users) each over the same users; the numbers of seeds may differ.

    Another sample of users and other seeds would both give another difference. With users and seeds as
    crossed random effects (Baayen et al., 2008; Owen, 2007) its variance is
    σ²_user/n + Σ_arms (σ²_seed/S + σ²_user×seed/(n S)). The first and the last are estimated
    by the variance of the users' differences; σ²_seed/S by the variance of the seeds' means beyond their
    share of the last, at least 0. Degrees of freedom by Satterthwaite (1946), from the uncorrected mean
    squares.

    With one seed an arm's training noise cannot be estimated and counts as 0: the result is then about
    these trainings only. With 2 or 3 seeds it is estimated from 1 or 2 degrees of freedom per arm: where
    it outweighs the users' variance, only a difference of many times the noise is significant.
    """
    return _crossed([(1.0, ours), (-1.0, theirs)])


def _crossed(terms: Sequence[tuple[float, NDArray[np.floating]]]) -> Estimate:
    """Σ sign · mean over its runs (seeds, users)."""
    arms = [(sign, _finite(runs.T).T) for sign, runs in terms]
    by_user = sum(sign * runs.mean(axis=0) for sign, runs in arms)
    assert isinstance(by_user, np.ndarray)
    value, num_users = float(by_user.mean()), len(by_user)
    if num_users < 2:
        return Estimate(value, math.inf, 1.0)
    variance = by_user.var(ddof=1) / num_users
    squares, least = variance**2 / (num_users - 1), num_users - 1
    for _, runs in arms:
        num_seeds = len(runs)
        if num_seeds < 2:
            continue
        means = runs.mean(axis=1)
        residuals = runs - runs.mean(axis=0) - means[:, None] + runs.mean()
        degrees_of_freedom = num_seeds - 1
        between = means.var(ddof=1) / num_seeds
        within = (
            (residuals**2).sum() / (degrees_of_freedom * (num_users - 1)) / (num_users * num_seeds)
        )
        variance += max(0.0, between - within)
        squares += between**2 / degrees_of_freedom
        if between > 0:
            least = min(least, degrees_of_freedom)
    degrees_of_freedom = max(least, variance**2 / squares) if squares else float(least)
    return Estimate(value, math.sqrt(variance), degrees_of_freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing by Holm's step-down correction (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    worst = 0.0
    for place, row in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[row]))
        adjusted[row] = worst
    return adjusted.tolist()
