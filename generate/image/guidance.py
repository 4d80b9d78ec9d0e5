"""Classifier-free guidance with a scale each for item, structure and user: weights of denoiser passes."""

from typing import NamedTuple


class Case(NamedTuple):
    """Which conditions a pass of the denoiser sees, or a request has."""

    user: bool = False
    item: bool = False
    structure: bool = False


class Scales(NamedTuple):
    """How far to lean towards each condition: 1 follows what was learned, 0 ignores it."""

    user: float = 1.0
    item: float = 1.0
    structure: float = 1.0

    def plain(self) -> "Scales":
        """Without leaning further than what was learned; what is ignored still is."""
        return Scales(*(min(1.0, scale) for scale in self))


def guidance_weights(has: Case, scales: Scales) -> dict[Case, float]:
    """The classifier-free guidance weight of each pass; they sum to 1, and passes of weight 0 are left out.

    f(∅) + s_item (f(i) − f(∅)) + s_structure (f(i, x) − f(i)) + s_user (f(i, x, u) − f(i, x)), one
    condition after the other as in Brooks et al. 2023 (InstructPix2Pix, equation 3) and DiFashion (Xu
    et al. 2024). A condition that is absent, or whose scale is 0, adds no term and is seen by no pass.
    """
    weights: dict[Case, float] = {Case(): 1.0}
    before = Case()
    for name in ("item", "structure", "user"):
        scale = getattr(scales, name)
        if getattr(has, name) and scale != 0:
            case = before._replace(**{name: True})
            weights[before] -= scale
            weights[case] = weights.get(case, 0.0) + scale
            before = case
    return {case: weight for case, weight in weights.items() if weight != 0}
