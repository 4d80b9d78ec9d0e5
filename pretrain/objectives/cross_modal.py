"""Cross-modal objective: symmetric InfoNCE between an item's modalities (CLIP, Radford et al., 2021)."""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from pretrain.objectives.base import ContrastiveObjective, StepOutputs, first_occurrence_mask
from pretrain.objectives.contrast import symmetric_info_nce


class CrossModalContrast(ContrastiveObjective):
    """Mean over all pairs of modalities.

    Each item counts once in the whole batch, however many slots it fills on all ranks.
    """

    needs = ("projected_embeddings", "present")

    def forward(self, outputs: StepOutputs) -> Tensor:
        losses = [
            symmetric_info_nce(one, other, self.scale, chosen)
            for one, other, chosen in pairs(outputs)
        ]
        return torch.stack(losses).mean()


def pairs(outputs: StepOutputs) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each pair of modalities: both embeddings (slots, width), and which of this rank's slots count."""
    assert outputs.projected_embeddings is not None
    assert outputs.present is not None
    for one, other in combinations(range(outputs.projected_embeddings.shape[1]), 2):
        chosen = first_occurrence_mask(outputs, outputs.present[:, one] & outputs.present[:, other])
        yield outputs.projected_embeddings[:, one], outputs.projected_embeddings[:, other], chosen
