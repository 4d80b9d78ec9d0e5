"""Intervals hold the truth about as often as they say, and pairing makes them narrower."""

import math

import numpy as np
import pytest

from finetune.statistics import (
    difference_interval,
    difference_over_seeds,
    mean_interval,
    mean_over_seeds,
    ratio_interval,
)
from finetune.student_t import critical_t, two_sided_p


def test_interval_covers_the_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        interval = mean_interval(rng.exponential(size=120), seed=seed)
        inside += interval.low <= 1.0 <= interval.high
    assert 50 <= inside <= 60


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=200) * 10
    ours, theirs = shared + 1 + rng.normal(size=200) * 0.1, shared
    paired = difference_interval(ours, theirs)
    assert paired.low > 0.9
    assert paired.high < 1.1


def test_ratio() -> None:
    ours, theirs = np.full(50, 3.0), np.full(50, 1.5)
    assert ratio_interval(ours, theirs).value == 2
    assert ratio_interval(ours, np.zeros(50)).low == np.inf


# Two-sided 5 % and 1 % points, from the tables of Fisher and Yates.
@pytest.mark.parametrize(
    ("freedom", "five", "one"),
    [(1, 12.7062, 63.6567), (2, 4.3027, 9.9248), (4, 2.7764, 4.6041), (30, 2.0423, 2.75)],
)
def test_the_t_distribution_equals_its_tables(freedom: int, five: float, one: float) -> None:
    assert critical_t(0.05, freedom) == pytest.approx(five, abs=1e-4)
    assert critical_t(0.01, freedom) == pytest.approx(one, abs=1e-4)
    assert two_sided_p(five, freedom) == pytest.approx(0.05, abs=1e-5)
    assert two_sided_p(2.0, 1e7) == pytest.approx(math.erfc(2 / math.sqrt(2)), abs=1e-6)
    assert (two_sided_p(0.0, freedom), two_sided_p(math.inf, freedom)) == (1.0, 0.0)


def test_training_noise_alone_is_rarely_called_a_difference() -> None:
    """Each training is a little better or worse for all users: over users alone that looks real."""
    rng = np.random.default_rng(0)
    users, shift = rng.random(800), 0.03
    called = {"crossed": 0, "users alone": 0}
    for _ in range(200):
        ours, theirs = (users * (1 + shift * rng.normal(size=(3, 1))) for _ in range(2))
        called["crossed"] += difference_over_seeds(ours, theirs).p < 0.05
        alone = difference_over_seeds(ours.mean(axis=0)[None], theirs.mean(axis=0)[None])
        called["users alone"] += alone.p < 0.05
    assert called["crossed"] <= 18  # 10 expected; 18 or more by chance in 1 of 100 runs
    assert called["users alone"] > 150


def test_the_variance_of_a_difference_is_that_of_users_and_of_seeds() -> None:
    rng = np.random.default_rng(1)
    num_users, num_seeds = 400, 4
    spread, found = [], []
    for _ in range(300):
        arms = [
            0.1 * rng.normal(size=(num_seeds, 1))
            + rng.normal(size=(1, num_users))
            + 0.5 * rng.normal(size=(num_seeds, num_users))
            for _ in range(2)
        ]
        difference = difference_over_seeds(*arms)
        spread.append(difference.interval.value)
        found.append(difference.interval.high - difference.interval.low)
    true = math.sqrt(2 * (0.1**2 / num_seeds + 1 / num_users + 0.5**2 / num_users / num_seeds))
    assert np.std(spread) == pytest.approx(true, rel=0.15)
    assert np.median(found) == pytest.approx(2 * critical_t(0.05, 12) * true, rel=0.3)


def test_a_real_difference_is_found_and_has_its_sign() -> None:
    rng = np.random.default_rng(2)
    users = rng.random(500)
    ours = users + 0.02 + 0.05 * rng.normal(size=(3, 500))
    theirs = users + 0.05 * rng.normal(size=(2, 500))
    found = difference_over_seeds(ours, theirs)
    assert found.p < 0.01
    assert 0 < found.interval.low < 0.02 < found.interval.high < 0.04
    back = difference_over_seeds(theirs, ours)
    assert back.interval.low == pytest.approx(-found.interval.high)
    assert back.p == pytest.approx(found.p)


def test_what_is_equal_everywhere_has_no_noise() -> None:
    runs = np.tile(np.random.default_rng(3).random(50), (3, 1))
    assert difference_over_seeds(runs, runs).p == 1
    assert difference_over_seeds(runs + 1, runs).p < 1e-9
    assert difference_over_seeds(runs[:, :1] + 1, runs[:, :1]).p == 1, "one user shows nothing"
    assert mean_over_seeds(runs).value == pytest.approx(runs.mean())


def test_without_training_noise_the_interval_is_that_of_users() -> None:
    runs = np.tile(np.random.default_rng(4).random(50), (3, 1))
    found = mean_over_seeds(runs)
    reach = critical_t(0.05, 49) * runs[0].std(ddof=1) / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx((runs.mean() - reach, runs.mean() + reach))
