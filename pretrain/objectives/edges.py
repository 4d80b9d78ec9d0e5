"""Edge objective: InfoNCE between items that the catalog's `edges` table links."""

from torch import Tensor

from pretrain.objectives.base import ContrastiveObjective, StepOutputs
from pretrain.objectives.co_engagement import adjacent_slots, item_info_nce


class EdgeContrast(ContrastiveObjective):
    """InfoNCE of the two items of each edge, in both directions, among all items of all ranks."""

    needs = ("links",)

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.links is not None
        partners, counts = adjacent_slots(outputs.links)
        return item_info_nce(outputs, partners, counts & (outputs.links >= 0), self.scale)
