"""Guidance with a scale for the item and one for the person, as weights of plain passes."""

from typing import NamedTuple


class Case(NamedTuple):
    """Which conditions a pass of the denoiser sees."""

    user: bool
    item: bool


NOTHING, ITEM, USER, BOTH = (
    Case(False, False),
    Case(False, True),
    Case(True, False),
    Case(True, True),
)


def guidance_weights(
    has_user: bool, has_item: bool, user_scale: float, item_scale: float
) -> dict[Case, float]:
    """How much each pass counts; the weights sum to 1 and passes that count nothing are left out.

    f(∅,∅) + s_item (f(i,∅) − f(∅,∅)) + s_user (f(i,u) − f(i,∅)), the item before the person, as in
    Brooks et al. 2023 (InstructPix2Pix, equation 3) and DiFashion (Xu et al. 2024). A condition
    that is absent adds no term.
    """
    weights: dict[Case, float] = {NOTHING: 1.0}
    before = NOTHING
    for case, present, scale in (
        (ITEM, has_item, item_scale),
        (Case(True, has_item), has_user, user_scale),
    ):
        if present:
            weights[before] -= scale
            weights[case] = scale
            before = case
    return {case: weight for case, weight in weights.items() if weight != 0}
