"""Co-engagement objective: InfoNCE between consecutive items of a history (item2vec; UniSRec's item side)."""

import torch
from torch import Tensor

from pretrain.distributed import gather_rows, world
from pretrain.objectives.base import ContrastiveObjective, StepOutputs, log_q_correction
from pretrain.objectives.contrast import info_nce


class CoEngagementContrast(ContrastiveObjective):
    """InfoNCE of each item and an adjacent item of the same history, among all items of all ranks."""

    def forward(self, outputs: StepOutputs) -> Tensor:
        partners, counts = adjacent_slots(outputs.segments)
        return item_info_nce(outputs, partners, counts, self.scale)


def adjacent_slots(groups: Tensor) -> tuple[Tensor, Tensor]:
    """For each slot of `groups` int (slots,): the adjacent slot in the same group, preferably the next one;
    and bool (slots,), whether there is one."""
    places = torch.arange(len(groups), device=groups.device)
    after, before = (places + 1).clamp(max=len(groups) - 1), (places - 1).clamp(min=0)
    has_after = (groups[after] == groups) & (after != places)
    has_before = (groups[before] == groups) & (before != places)
    return torch.where(has_after, after, before), has_after | has_before


def item_info_nce(outputs: StepOutputs, partners: Tensor, counts: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of each slot's item against that of slot `partners`, with log-q correction.

    An item is neither its own negative nor its own partner.
    """
    ids = outputs.item_ids
    rank, _ = world()
    return info_nce(
        outputs.items,
        gather_rows(outputs.items),
        positives=partners + rank * len(ids),
        counts=counts & (ids != ids[partners]),
        query_ids=torch.stack([ids, ids[partners]], dim=1),
        key_ids=gather_rows(ids),
        key_bias=log_q_correction(outputs),
        scale=scale,
    )
