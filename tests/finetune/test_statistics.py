"""Intervals hold the truth about as often as they say, and pairing makes them narrower."""

import numpy as np

from finetune.statistics import difference_interval, mean_interval, ratio_interval


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
