"""Cross-modal sigmoid objective: SigLIP (Zhai et al., 2023), a binary loss for every pair of items."""

import torch
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.encoder import ItemEncoder
from pretrain.objectives.base import ContrastiveObjective, StepOutputs
from pretrain.objectives.contrast import sigmoid_loss
from pretrain.objectives.cross_modal import pairs


class CrossModalSigmoid(ContrastiveObjective):
    """The sigmoid loss over all pairs of modalities, without gathering the vectors of all ranks."""

    needs = ("projected_embeddings", "present")

    def __init__(self) -> None:
        # Most pairs are negatives: these initial values make the first loss small (§3.2).
        super().__init__(temperature=0.1)
        self.bias = nn.Parameter(torch.tensor([-10.0]))

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "CrossModalSigmoid":
        return cls()

    def forward(self, outputs: StepOutputs) -> Tensor:
        losses = [
            sigmoid_loss(one, other, self.scale, self.bias, chosen)
            for one, other, chosen in pairs(outputs)
        ]
        return torch.stack(losses).mean()
