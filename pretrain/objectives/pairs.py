"""Whether a text and a picture belong together, asked of every pair: SigLIP (Zhai et al., 2023)."""

import torch
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.encoder import ItemEncoder
from pretrain.objectives.base import ContrastiveObjective, StepOutputs
from pretrain.objectives.contrast import sigmoid_contrast
from pretrain.objectives.modalities import with_both


class PairSigmoid(ContrastiveObjective):
    """Every pair by itself: no rank holds another's vectors for longer than a moment."""

    needs = ("text", "image")

    def __init__(self) -> None:
        # Where most pairs do not belong together, these starts make the first loss small (§3.2).
        super().__init__(temperature=0.1)
        self.bias = nn.Parameter(torch.tensor([-10.0]))

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "PairSigmoid":
        return cls()

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.text is not None
        assert outputs.image is not None
        chosen = with_both(outputs)
        return sigmoid_contrast(outputs.text, outputs.image, self.scale, self.bias, chosen)
