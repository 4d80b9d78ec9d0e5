"""Projections from tower width to the shared width, and the rows of items that have a modality."""

from torch import Tensor, nn


class Projection(nn.Module):
    """Linear map from tower width to shared width, normalised so that all towers have equal scale."""

    def __init__(self, tower_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(tower_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.norm(self.linear(pooled))


def scatter_present(values: Tensor, present: Tensor) -> Tensor:
    """Scatters the rows of items that have a modality to their positions among all items.

    `values` (k, width) with k ≥ number present, `present` bool (n,). Returns (n, width), zero where the
    modality is missing. k may exceed the number present by one dummy row with gradient zero: every rank
    runs every tower in every step, as ZeRO-3 requires.
    """
    # Does not read the number present from the device: on a GPU each step would wait for it.
    rows = (present.cumsum(0) - 1).clamp(min=0)
    return values.index_select(0, rows).masked_fill(~present.unsqueeze(1), 0.0)
