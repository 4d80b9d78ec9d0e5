"""An item's text and picture belong together: symmetric InfoNCE (CLIP, Radford et al., 2021)."""

import torch
from torch import Tensor

from pretrain.gather import gather_rows, world
from pretrain.objectives.base import ContrastiveObjective, StepOutputs, contrast, first_occurrences


class ModalityContrast(ContrastiveObjective):
    """Each item counts once in the whole batch, however many slots it fills on however many ranks."""

    needs = ("text", "image")

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.text is not None
        assert outputs.image is not None
        assert outputs.text_present is not None
        assert outputs.image_present is not None
        rank, _ = world()
        slots = outputs.item_ids.shape[0]
        ids = gather_rows(outputs.item_ids)
        both = gather_rows(outputs.text_present & outputs.image_present)
        chosen = first_occurrences(ids, both)
        positives = torch.arange(slots, device=ids.device) + rank * slots
        settings = {
            "positives": positives,
            "counts": chosen[positives],
            "query_ids": outputs.item_ids,
            "key_ids": ids,
            "key_valid": chosen,
            "scale": self.scale,
        }
        to_image = contrast(outputs.text, gather_rows(outputs.image), **settings)
        to_text = contrast(outputs.image, gather_rows(outputs.text), **settings)
        return (to_image + to_text) / 2
