"""What a comparison of arms shows: differences over the same users, and whether chance made them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.statistics import LEVEL, Interval, difference_over_seeds, holm


@dataclass(frozen=True)
class Difference:
    """One arm against another, over the same users."""

    ours: str
    theirs: str
    value: Interval
    """Over users and, where both have several trainings, over these; not corrected."""
    p: float
    """Two-sided, of no difference (`finetune.statistics.difference_over_seeds`)."""
    adjusted: float
    """The same, corrected for how many differences were looked at."""
    single: tuple[str, ...] = ()
    """Arms that were trained once, so that nothing is known of their training noise."""

    @property
    def word(self) -> str:
        """better, worse, or no difference, at `LEVEL` of the whole family (Holm, 1979)."""
        if self.adjusted > LEVEL:
            return "no difference"
        return "better" if self.value.value > 0 else "worse"

    @property
    def caveat(self) -> str:
        """What the figures cannot say; empty where nothing."""
        if not self.single:
            return ""
        return f"training noise of {' and '.join(self.single)} is not measured (one seed)"


def differences(
    values: Mapping[str, NDArray[np.float64]],
    pairs: list[tuple[str, str]],
    same_for_every_seed: Collection[str] = (),
) -> list[Difference]:
    """`values`: arm → a metric of each user in each training, (seeds, users); `pairs`: (ours, theirs);
    `same_for_every_seed`: arms without training noise."""
    raw = [difference_over_seeds(values[ours], values[theirs]) for ours, theirs in pairs]
    adjusted = holm([found.p for found in raw])
    single = {name for name, runs in values.items() if len(runs) < 2} - {*same_for_every_seed}
    return [
        Difference(*pair, found.interval, found.p, p, tuple(n for n in pair if n in single))
        for pair, found, p in zip(pairs, raw, adjusted, strict=True)
    ]


def say(found: Difference, what: str, theirs: float, beware: str = "") -> str:
    """One sentence: *what* helped, hurt, or made no clear difference here; `theirs` is the other's mean;
    `beware` is what a reader must know beside that."""
    verb = {"better": "helped", "worse": "hurt", "no difference": "made no clear difference"}[
        found.word
    ]
    share = f" ({found.value.value / theirs:+.1%})" if theirs > 0 else ""
    told = f" Beware: {beware}." if beware else ""
    return (
        f"{what} {verb} here: NDCG@10 {found.value.value:+.4f}{share} "
        f"[{found.value.low:+.4f}, {found.value.high:+.4f}], "
        f"p = {found.adjusted:.3g} after Holm's correction ({found.ours} against {found.theirs})."
        f"{told}"
    )
