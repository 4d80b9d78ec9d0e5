"""Items that one person took one after the other belong together (item2vec; UniSRec's item side)."""

import torch
from torch import Tensor

from pretrain.distributed import gather_rows, world
from pretrain.objectives.base import ContrastiveObjective, StepOutputs, negatives_bias
from pretrain.objectives.contrast import contrast


class CoEngagementContrast(ContrastiveObjective):
    """Each item of a history against its neighbour there, among all items of all ranks."""

    def forward(self, outputs: StepOutputs) -> Tensor:
        partners, counts = neighbours(outputs.segments)
        return item_contrast(outputs, partners, counts, self.scale)


def neighbours(groups: Tensor) -> tuple[Tensor, Tensor]:
    """For each slot of `groups` int (slots,): the slot after it if that is in the same group, else
    the one before it; and whether either is."""
    places = torch.arange(len(groups), device=groups.device)
    after, before = (places + 1).clamp(max=len(groups) - 1), (places - 1).clamp(min=0)
    has_after = (groups[after] == groups) & (after != places)
    has_before = (groups[before] == groups) & (before != places)
    return torch.where(has_after, after, before), has_after | has_before


def item_contrast(outputs: StepOutputs, partners: Tensor, counts: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of each slot's item against that of slot `partners`, with popularity taken out.

    An item is neither its own negative nor its own partner.
    """
    ids = outputs.item_ids
    rank, _ = world()
    return contrast(
        outputs.items,
        gather_rows(outputs.items),
        positives=partners + rank * len(ids),
        counts=counts & (ids != ids[partners]),
        query_ids=torch.stack([ids, ids[partners]], dim=1),
        key_ids=gather_rows(ids),
        key_bias=negatives_bias(outputs),
        scale=scale,
    )
