"""What a comparison of arms shows: differences over the same people, and whether chance made them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.statistics import Interval, difference_interval, holm, sign_flip_p

LEVEL = 0.05
"""Of the whole family of comparisons (Holm, 1979)."""


@dataclass(frozen=True)
class Difference:
    """One arm against another, over the same people."""

    ours: str
    theirs: str
    value: Interval
    p: float
    """That signs flipped at random make a mean as far from 0; two-sided."""
    adjusted: float
    """The same, corrected for how many differences were looked at."""

    @property
    def word(self) -> str:
        """better, worse, or no difference."""
        if self.adjusted > LEVEL:
            return "no difference"
        return "better" if self.value.value > 0 else "worse"


def differences(
    values: Mapping[str, NDArray[np.float64]], pairs: list[tuple[str, str]]
) -> list[Difference]:
    """`values`: arm → a metric of each person (people,), seeds averaged; `pairs`: (ours, theirs)."""
    raw = [sign_flip_p(values[ours] - values[theirs]) for ours, theirs in pairs]
    return [
        Difference(ours, theirs, difference_interval(values[ours], values[theirs]), p, adjusted)
        for (ours, theirs), p, adjusted in zip(pairs, raw, holm(raw), strict=True)
    ]


def say(found: Difference, what: str, theirs: float) -> str:
    """One sentence: *what* helped, hurt, or made no clear difference here; `theirs` is the other's mean."""
    verb = {"better": "helped", "worse": "hurt", "no difference": "made no clear difference"}[
        found.word
    ]
    share = f" ({found.value.value / theirs:+.1%})" if theirs > 0 else ""
    return (
        f"{what} {verb} here: NDCG@10 {found.value.value:+.4f}{share} "
        f"[{found.value.low:+.4f}, {found.value.high:+.4f}], "
        f"p = {found.adjusted:.3g} after Holm's correction ({found.ours} against {found.theirs})."
    )
