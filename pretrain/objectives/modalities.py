"""An item's text and picture belong together: symmetric InfoNCE (CLIP, Radford et al., 2021)."""

from torch import Tensor

from pretrain.gather import gather_rows, world
from pretrain.objectives.base import ContrastiveObjective, StepOutputs, first_occurrences
from pretrain.objectives.contrast import symmetric_contrast


class ModalityContrast(ContrastiveObjective):
    """Each item counts once in the whole batch, however many slots it fills on however many ranks."""

    needs = ("text", "image")

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.text is not None
        assert outputs.image is not None
        chosen = with_both(outputs)
        return symmetric_contrast(outputs.text, outputs.image, self.scale, chosen)


def with_both(outputs: StepOutputs) -> Tensor:
    """bool (slots,): this rank's slots that hold an item with text and picture for the first time."""
    assert outputs.text_present is not None
    assert outputs.image_present is not None
    rank, _ = world()
    slots = outputs.item_ids.shape[0]
    both = gather_rows(outputs.text_present & outputs.image_present)
    chosen = first_occurrences(gather_rows(outputs.item_ids), both)
    return chosen[rank * slots : (rank + 1) * slots]
