"""Significance of differences between arms over the same users, corrected for multiple testing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.statistics import SIGNIFICANCE_LEVEL, Interval, difference_over_seeds, holm


@dataclass(frozen=True)
class Difference:
    """The difference between two arms over the same users."""

    ours: str
    theirs: str
    value: Interval
    """Over users and, if both have several seeds, over seeds; not corrected."""
    p: float
    """Two-sided p-value of no difference (`finetune.statistics.difference_over_seeds`)."""
    adjusted: float
    """The p-value after Holm's correction for the number of differences."""
    single: tuple[str, ...] = ()
    """Arms of one seed, whose training noise is unknown."""

    @property
    def verdict(self) -> str:
        """better, worse, or no difference, at the family-wise `SIGNIFICANCE_LEVEL` (Holm, 1979)."""
        if self.adjusted > SIGNIFICANCE_LEVEL:
            return "no difference"
        return "better" if self.value.value > 0 else "worse"

    @property
    def caveat(self) -> str:
        """The limit of the result; empty if there is none."""
        if not self.single:
            return ""
        return f"training noise of {' and '.join(self.single)} is not measured (one seed)"


def compare_pairs(
    values: Mapping[str, NDArray[np.float64]],
    pairs: list[tuple[str, str]],
    same_for_every_seed: Collection[str] = (),
) -> list[Difference]:
    """The difference of each pair of arms. `values`: arm → a metric, (seeds, users); `pairs`: (ours, theirs);
    `same_for_every_seed`: arms without training noise."""
    raw = [difference_over_seeds(values[ours], values[theirs]) for ours, theirs in pairs]
    adjusted = holm([difference.p for difference in raw])
    single = {name for name, runs in values.items() if len(runs) < 2} - {*same_for_every_seed}
    return [
        Difference(
            *pair, difference.interval, difference.p, p, tuple(n for n in pair if n in single)
        )
        for pair, difference, p in zip(pairs, raw, adjusted, strict=True)
    ]


def describe_difference(difference: Difference, what: str, theirs: float, beware: str = "") -> str:
    """One sentence: *what* helped, hurt, or made no clear difference; `theirs` is the mean of the other arm,
    `beware` a caveat that is appended."""
    verb = {"better": "helped", "worse": "hurt", "no difference": "made no clear difference"}[
        difference.verdict
    ]
    share = f" ({difference.value.value / theirs:+.1%})" if theirs > 0 else ""
    caveat = f" Beware: {beware}." if beware else ""
    return (
        f"{what} {verb} here: NDCG@10 {difference.value.value:+.4f}{share} "
        f"[{difference.value.low:+.4f}, {difference.value.high:+.4f}], "
        f"p = {difference.adjusted:.3g} after Holm's correction "
        f"({difference.ours} against {difference.theirs})."
        f"{caveat}"
    )
