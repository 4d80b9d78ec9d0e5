"""Base class of the objectives: a loss over one step's outputs, exact over all ranks."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.distributed import gather_rows, world
from pretrain.encoder import ItemEncoder


@dataclass
class StepOutputs:
    """The outputs of one rank's step for all `slots` of its packed rows; an item may fill several slots."""

    item_ids: Tensor
    """int (slots,): the item's id; duplicate items share one."""
    items: Tensor
    """(slots, width), unit length."""
    states: Tensor
    """(slots, width): the user state after the history up to and including that slot, unit length."""
    segments: Tensor
    """int (slots,): number of the history segment; its consecutive items are in adjacent slots."""
    log_popularity: Tensor
    """(slots,): log of the probability that the sampler draws this item."""
    projected_embeddings: Tensor | None = None
    """(slots, m, width): modality embeddings behind projection heads, unit length, zero where missing."""
    modality_embeddings: Tensor | None = None
    """(slots, m, width): the inputs of the fusion; zero where missing."""
    present: Tensor | None = None
    """bool (slots, m)."""
    visible_mask: Tensor | None = None
    """bool (slots, m): present and not hidden by modality dropout."""
    tokens: Tensor | None = None
    """int (slots, length): the text's token ids, padded with -1."""
    token_nll: Tensor | None = None
    """(slots, 2): summed negative log-likelihood and number of the text's tokens."""
    links: Tensor | None = None
    """int (slots,): equal for two adjacent slots whose items an edge of the catalog links; otherwise -1."""


class Objective(nn.Module, ABC):
    """A weighted term of the pretraining loss.

    `needs` names the optional fields of StepOutputs that it requires. Calling it returns a scalar whose *mean
    over ranks* is the loss of the whole batch, so that the averaging of gradients in DDP and ZeRO gives the
    gradient of one process.
    """

    needs: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "Objective": ...

    @abstractmethod
    def forward(self, outputs: StepOutputs) -> Tensor: ...


class ContrastiveObjective(Objective):
    """An objective with a learned temperature of its own."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        # Shape (1,), not a scalar: DeepSpeed cannot shard parameters without a dimension.
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, at most 100; the bound passes the gradient, so that the scale can fall
        again."""
        scale = self.logit_scale.exp()
        return scale + (scale.clamp(max=100.0) - scale).detach()

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "ContrastiveObjective":
        return cls(settings.temperature)


def log_q_correction(outputs: StepOutputs) -> Tensor:
    """The log-q correction of each slot's item: −log of its expected count among other slots, (all slots,).

    Added to the logits of negatives, it makes the sum over the batch an estimate of the sum over all
    items of the training data (sources and limits: see `finetune.losses.sampled_softmax_loss`).
    """
    log_chances = gather_rows(outputs.log_popularity)
    return -(log_chances + math.log(max(1, len(log_chances) - 1)))


def first_occurrence_mask(outputs: StepOutputs, valid: Tensor) -> Tensor:
    """bool (slots,): this rank's slots that are the first occurrence, over all ranks, of a `valid` item."""
    rank, _ = world()
    slots = len(outputs.item_ids)
    chosen = first_occurrences(gather_rows(outputs.item_ids), gather_rows(valid))
    return chosen[rank * slots : (rank + 1) * slots]


def first_occurrences(ids: Tensor, valid: Tensor) -> Tensor:
    """bool (n,): valid, and no earlier valid row has the same id; deterministic, so equal on all ranks."""
    order = torch.argsort(ids, stable=True)
    chosen = torch.zeros_like(valid)
    kept = order[valid[order]]
    ids_kept = ids[kept]
    new = torch.ones_like(ids_kept, dtype=torch.bool)
    new[1:] = ids_kept[1:] != ids_kept[:-1]
    chosen[kept[new]] = True
    return chosen
