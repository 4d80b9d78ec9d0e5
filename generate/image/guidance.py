"""Classifier-free guidance with a scale each for item, structure and user: weights of denoiser passes."""

from typing import NamedTuple


class Conditions(NamedTuple):
    """Which conditions a pass of the denoiser is given, or a request has."""

    user: bool = False
    item: bool = False
    structure: bool = False


class GuidanceScales(NamedTuple):
    """Guidance scale of each condition: 1 samples the learned conditional, 0 ignores the condition."""

    user: float = 1.0
    item: float = 1.0
    structure: float = 1.0

    def without_guidance(self) -> "GuidanceScales":
        """The scales with a maximum of 1: no guidance, while ignored conditions stay ignored."""
        return GuidanceScales(*(min(1.0, scale) for scale in self))


def guidance_weights(present: Conditions, scales: GuidanceScales) -> dict[Conditions, float]:
    """The classifier-free guidance weight of each pass; they sum to 1, and passes of weight 0 are left out.

    f(∅) + s_item (f(i) − f(∅)) + s_structure (f(i, x) − f(i)) + s_user (f(i, x, u) − f(i, x)), one
    condition after the other as in Brooks et al. 2023 (InstructPix2Pix, equation 3) and DiFashion (Xu
    et al. 2024). A condition that is absent, or whose scale is 0, adds no term and is given to no pass.
    """
    weights: dict[Conditions, float] = {Conditions(): 1.0}
    previous = Conditions()
    for name in ("item", "structure", "user"):
        scale = getattr(scales, name)
        if getattr(present, name) and scale != 0:
            conditions = previous._replace(**{name: True})
            weights[previous] -= scale
            weights[conditions] = weights.get(conditions, 0.0) + scale
            previous = conditions
    return {conditions: weight for conditions, weight in weights.items() if weight != 0}
