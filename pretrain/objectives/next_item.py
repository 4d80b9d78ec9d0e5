"""Next-item objective: InfoNCE between the state of a history and its next item.

UniSRec (Hou et al., 2022) and MISSRec (Wang et al., 2023). Popular items are negatives more
often; the log-q correction of the logits removes that bias (`log_q_correction`).
"""

import torch
from torch import Tensor

from pretrain.distributed import gather_rows, world
from pretrain.objectives.base import ContrastiveObjective, StepOutputs, log_q_correction
from pretrain.objectives.contrast import info_nce


class NextItemContrast(ContrastiveObjective):
    """InfoNCE of the state after each slot and the item in the next slot, among all items of all ranks."""

    def forward(self, outputs: StepOutputs) -> Tensor:
        rank, _ = world()
        slots = outputs.item_ids.shape[0]
        following = torch.arange(slots, device=outputs.item_ids.device) + 1
        following[-1] = slots - 1  # the last slot has no next one; it is not counted below
        counts = outputs.segments == outputs.segments[following]
        counts[-1] = False
        return info_nce(
            outputs.states,
            gather_rows(outputs.items),
            positives=following + rank * slots,
            counts=counts,
            query_ids=outputs.item_ids[following],
            key_ids=gather_rows(outputs.item_ids),
            key_bias=log_q_correction(outputs),
            scale=self.scale,
        )
