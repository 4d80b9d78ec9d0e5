"""Reconstruction objective: predicts a hidden modality from the visible ones (masked features).

Masked prediction (BERT, Devlin et al., 2019) of whole modalities: an item with a missing image shall have
about the same embedding as with it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.distributed import sum_over_ranks, world
from pretrain.encoder import ItemEncoder
from pretrain.objectives.base import Objective, StepOutputs


class FeatureReconstruction(Objective):
    """1 − cosine of prediction and hidden embedding, mean over all embeddings that modality dropout hides.

    The target gets no gradient, so that it does not become easier to predict.
    """

    needs = ("modality_embeddings", "present", "visible_mask")

    def __init__(self, width: int, num_modalities: int) -> None:
        super().__init__()
        self.input_scale = width**0.5  # unit vectors → unit variance
        self.prediction_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(num_modalities)
        )

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "FeatureReconstruction":
        return cls(encoder.config.width, len(encoder.modalities))

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.modality_embeddings is not None
        assert outputs.present is not None
        assert outputs.visible_mask is not None
        hidden = outputs.present & ~outputs.visible_mask  # (slots, m)
        predicted = torch.stack(
            [head(outputs.items * self.input_scale) for head in self.prediction_heads], dim=1
        )
        losses = 1 - F.cosine_similarity(predicted, outputs.modality_embeddings.detach(), dim=-1)
        total = sum_over_ranks(hidden.sum().to(losses.dtype)).clamp(min=1)
        return (losses * hidden).sum() * world()[1] / total
