"""Items that the catalog itself links (its `edges` table) belong together."""

from torch import Tensor

from pretrain.objectives.base import ContrastiveObjective, StepOutputs
from pretrain.objectives.co_engagement import item_contrast, neighbours


class EdgeContrast(ContrastiveObjective):
    """Each end of an edge against the other, among all items of all ranks."""

    needs = ("links",)

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.links is not None
        partners, counts = neighbours(outputs.links)
        return item_contrast(outputs, partners, counts & (outputs.links >= 0), self.scale)
