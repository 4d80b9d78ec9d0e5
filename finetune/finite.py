"""Checks for scores and weights that are nan or infinite, with the first cause in one line."""

from torch import Tensor, nn

from catalog.errors import NonFiniteError


def check_finite_scores(scores: Tensor, first: int = 0) -> None:
    """Raises NonFiniteError if a score is nan or infinite; `scores` (…, n) are of items `first`, …"""
    if not scores.sum().isfinite() and len(nonfinite := (~scores.isfinite()).nonzero()):
        raise NonFiniteError(
            f"the score of item row {first + int(nonfinite[0, -1])} is not finite, so no list follows "
            "from it; make the item vectors again"
        )


def nonfinite_cause(model: nn.Module) -> str:
    """The name of the first weight of `model` that is not finite, as the end of an error message."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return (
                f"the weights {name} hold nan or infinity; train again, with a lower learning rate"
            )
    return "its weights are finite and its numbers overflow; use --trainer.precision 32-true"
