"""What every objective is: a loss over one step's outputs, exact over all ranks."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.encoder import ItemEncoder


@dataclass
class StepOutputs:
    """One rank's step. A batch is `slots` places in packed rows; one item may fill several."""

    item_ids: Tensor
    """int (slots,): a number for the item; twins in the catalog share one."""
    items: Tensor
    """(slots, width), unit length."""
    states: Tensor
    """(slots, width): the reading of the history up to and including that slot, unit length."""
    segments: Tensor
    """int (slots,): one number a stretch of history; neighbours in a stretch stand side by side."""
    log_popularity: Tensor
    """(slots,): log of the chance that the sampler draws this item."""
    text: Tensor | None = None
    """(slots, width), unit length; zero where absent."""
    image: Tensor | None = None
    text_present: Tensor | None = None
    """bool (slots,)."""
    tokens: Tensor | None = None
    """int (slots, length): the text's token ids, padded with -1."""
    image_present: Tensor | None = None


class Objective(nn.Module, ABC):
    """A weighted term of the pretraining loss.

    `needs` names the modalities it cannot do without. Calling it returns a scalar whose *mean over
    ranks* is the loss of the whole batch, so that the averaging of gradients in DDP and ZeRO gives
    the gradient of one process.
    """

    needs: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "Objective": ...

    @abstractmethod
    def forward(self, outputs: StepOutputs) -> Tensor: ...


class ContrastiveObjective(Objective):
    """One with a temperature of its own."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        # Shape (1,), not a scalar: DeepSpeed cannot shard parameters without a dimension.
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))

    @property
    def scale(self) -> Tensor:
        """At most 100; the gradient passes the bound, so that a scale that met it can come back."""
        scale = self.logit_scale.exp()
        return scale + (scale.clamp(max=100.0) - scale).detach()

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "ContrastiveObjective":
        return cls(settings.temperature)


def first_occurrences(ids: Tensor, valid: Tensor) -> Tensor:
    """bool (n,): valid, and no earlier valid row has the same id. Same answer on every rank."""
    order = torch.argsort(ids, stable=True)
    chosen = torch.zeros_like(valid)
    kept = order[valid[order]]
    ids_kept = ids[kept]
    new = torch.ones_like(ids_kept, dtype=torch.bool)
    new[1:] = ids_kept[1:] != ids_kept[:-1]
    chosen[kept[new]] = True
    return chosen
