"""Calibration of significance verdicts: false positive rate and power on a simulated shop.

    python -m benchmarks.verdicts                # writes benchmarks/results/verdict-calibration.json

The rank of a user's target depends on the difficulty of the user, on the luck of each training with this
user, and on the strength of each training for all users: exp(difficulty + luck) / strength. Two equal arms
differ in luck and strength by training alone; the standard deviation of NDCG@10 over seeds, as a share of
it, is called seed noise. Each combination of users, seeds and noise is drawn many times; at a level of .05
at most 6 % may be called different, including the upper end of the 95 % interval (Wilson, 1927). As a
control, `users_alone` is the share of a t-test over users on the same draws with seeds averaged, which
takes training noise for an effect.
"""

import argparse
import itertools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import write_record
from finetune.statistics import SIGNIFICANCE_LEVEL, difference_over_seeds

NOISES = (0.0, 0.01, 0.03, 0.1)
SEEDS = (2, 3, 5)
USERS = (500, 2_000)
LUCKS = (0.3, 1.5)
"""Standard deviation over trainings of one target's log rank, in nats."""
DRAWS = 1_000
"""Simulated tables for each combination; each goal pools four combinations of users and luck."""
EFFECTS = (0.05, 0.1, 0.2)
GOAL = 0.06
MEDIAN, SPREAD = math.log(90), 2.0
"""Mean and standard deviation of log ranks without luck, in nats: NDCG@10 is about .08."""


class SimulatedShop:
    """Simulated users, each with a difficulty: the log rank of their target."""

    def __init__(self, num_users: int, luck: float, rng: np.random.Generator) -> None:
        self.difficulty = MEDIAN + SPREAD * rng.normal(size=num_users)
        self.luck, self.rng = luck, rng

    def arm(self, seeds: int, noise: float, better: float = 0.0) -> NDArray[np.float64]:
        """Draws NDCG@10 (seeds, users) of an arm that is better by the share `better`, 0 for an equal one."""
        strength = (better + noise * self.rng.normal(size=(seeds, 1))) / SLOPE[self.luck]
        luck = self.luck * self.rng.normal(size=(seeds, len(self.difficulty)))
        return ndcg(self.difficulty + luck - strength)


def ndcg(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """NDCG@10 of one target each, from the logarithm of its rank."""
    found = np.zeros(logs.shape)
    near = logs < math.log(10)
    found[near] = 1 / np.log2(2 + np.floor(np.exp(logs[near])))
    return found


def _slope(luck: float) -> float:
    """Relative growth of NDCG@10 per nat by which all log ranks fall."""
    rng = np.random.default_rng(7)
    logs = MEDIAN + np.hypot(SPREAD, luck) * rng.normal(size=2_000_000)
    rise = ndcg(logs - 0.05).mean() - ndcg(logs + 0.05).mean()
    return float(rise / 0.1 / ndcg(logs).mean())


SLOPE = {luck: _slope(luck) for luck in LUCKS}


def wilson(hits: int, draws: int) -> tuple[float, float, float]:
    """A proportion and its 95 % Wilson interval: (share, low, high)."""
    share, z = hits / draws, 1.959964
    middle = (share + z * z / (2 * draws)) / (1 + z * z / draws)
    reach = (
        z * math.sqrt(share * (1 - share) / draws + z * z / (4 * draws**2)) / (1 + z * z / draws)
    )
    return share, middle - reach, middle + reach


def called_different(
    draws: int, seeds: int, noise: float, better: float = 0.0
) -> tuple[int, int, int]:
    """Counts over all `USERS` and `LUCKS`: tables, tables whose arms are called different, and tables where a
    t-test over users with averaged seeds calls them different."""
    crossed = alone = tables = 0
    for num_users, luck in itertools.product(USERS, LUCKS):
        rng = np.random.default_rng(
            [seeds, round(1000 * noise), round(1000 * better), num_users, round(10 * luck)]
        )
        for _ in range(draws):
            shop = SimulatedShop(num_users, luck, rng)
            ours, theirs = shop.arm(seeds, noise, better), shop.arm(seeds, noise)
            crossed += difference_over_seeds(ours, theirs).p <= SIGNIFICANCE_LEVEL
            single = (arm.mean(axis=0, keepdims=True) for arm in (ours, theirs))
            alone += difference_over_seeds(*single).p <= SIGNIFICANCE_LEVEL
            tables += 1
    return tables, crossed, alone


def measure(draws: int) -> dict[str, float]:
    figures: dict[str, float] = {"tables": 4 * draws}
    for seeds, noise in itertools.product(SEEDS, NOISES):
        key = f"equal_called_different_{seeds}_seeds_noise_{noise:.0%}".replace("%", "")
        tables, crossed, alone = called_different(draws, seeds, noise)
        figures[key], figures[f"{key}_low"], figures[f"{key}_high"] = wilson(crossed, tables)
        figures[f"{key}_users_alone"] = alone / tables
        print(f"{key}: {figures[key]:.4f} (users alone {alone / tables:.4f})", flush=True)
    for noise, effect in itertools.product(NOISES, EFFECTS):
        few = max(1, draws // 8)
        tables, crossed, _ = called_different(few, 3, noise, effect)
        key = f"better_by_{effect:.0%}_found_3_seeds_noise_{noise:.0%}".replace("%", "")
        figures[key] = crossed / tables
        print(f"{key}: {figures[key]:.4f}", flush=True)
    return figures


def goals(figures: Mapping[str, float]) -> list[str]:
    return [f"{name} <= {GOAL}" for name in figures if name.endswith("_high")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=DRAWS)
    draws = parser.parse_args().draws
    figures = measure(draws)
    write_record(
        name="verdict-calibration",
        claim="Two equal methods are called different in at most 6 % of the comparisons, however much "
        "trainings differ",
        command="python -m benchmarks.verdicts",
        seeds=[0],
        figures=figures,
        goal=goals(figures),
        sources=["finetune/statistics.py", "finetune/student_t.py"],
        note="At a level of .05. Each figure is over tables of 500 and 2,000 users whose targets a "
        "training moves by .3 or 1.5 nats of their rank; noise is the standard deviation of an arm's "
        "NDCG@10 over seeds, as a share of it. users_alone: a t-test over users on the same draws after "
        "the seeds were averaged. found: how often an arm better by 5, 10 or 20 % is called different.",
    )


if __name__ == "__main__":
    main()
