"""Masks of items by a segmentation model of the Hugging Face hub; its remote code is never run."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForImageSegmentation,
    AutoModelForSemanticSegmentation,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
)
from transformers.utils import logging

from catalog.errors import VitrineError
from pretrain.artifact import without_bars
from pretrain.hub import read_config, read_model
from pretrain.modalities.image import normalize_pixels
from pretrain.towers.image_processor import read_image_processor

BACKGROUND = "background"
AUTO_CLASSES = {
    **dict.fromkeys(
        MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, AutoModelForSemanticSegmentation
    ),
    **dict.fromkeys(MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES, AutoModelForImageSegmentation),
}
"""Model type → class that reads a checkpoint with its segmentation head."""


class SegmentationModel:
    """Finds the pixels of the labels that are the item: by class of each pixel, or of each mask (DETR)."""

    def __init__(
        self, model: str, labels: tuple[str, ...] = (), device: torch.device | None = None
    ) -> None:
        """`model`: its name on the hub, or its folder; `labels` that are the item, empty: all but background.

        VitrineError where it cannot be loaded, segments nothing, or has none of the labels.
        """
        with without_bars(logging):
            kind = read_config(model).model_type
            if kind not in AUTO_CLASSES:
                raise VitrineError(
                    f"segmentation_model {model!r} is a {kind}, which segments no images; give one of "
                    f"{', '.join(sorted(AUTO_CLASSES))}."
                )
            self.model = read_model(model, AUTO_CLASSES[kind], "segmentation_model").eval()
        nn.Module.to(self.model, device)
        processor = read_image_processor(model)
        self.mean, self.std, self.shape = processor.mean, processor.std, processor.shape
        names = {int(n): str(name).lower() for n, name in self.model.config.id2label.items()}
        wanted = {label.lower() for label in labels} or set(names.values()) - {BACKGROUND}
        self.item_labels = sorted(n for n, name in names.items() if name in wanted)
        by_class = kind not in MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES
        if not self.item_labels or (
            by_class and len(names) > 1 and len(self.item_labels) == len(names)
        ):
            raise VitrineError(
                f"segmentation_model {model!r} does not tell the item from its background: it has the "
                f"labels {', '.join(names.values())}; name those of the item with --segmentation_labels."
            )

    @torch.no_grad()
    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Picture (height, width, 3) → bool (height, width). The picture is resized for the model, and its
        scores are resized back."""
        height, width = self.shape
        small = np.array(Image.fromarray(image).resize((width, height)))
        inputs = normalize_pixels(small[None], self.mean, self.std)
        output = self.model(inputs.to(self.model.device))
        scores = self._scores(output)[None, None].float()
        size = (image.shape[0], image.shape[1])
        return (F.interpolate(scores, size, mode="bilinear")[0, 0] > 0).cpu().numpy()

    def _scores(self, output: object) -> Tensor:
        """(rows, columns): above 0 where the item is."""
        logits: Tensor = output.logits[0]  # pyright: ignore[reportAttributeAccessIssue]
        masks: Tensor | None = getattr(output, "pred_masks", None)
        if masks is not None:  # DETR: (queries, labels + 1) and (queries, rows, columns)
            chosen = torch.isin(
                logits.argmax(-1), torch.tensor(self.item_labels, device=logits.device)
            )
            inside = masks[0][chosen].sigmoid().amax(0) if chosen.any() else masks[0, 0] * 0
            return inside - 0.5
        if len(logits) == 1:
            return logits[0]
        rest = [n for n in range(len(logits)) if n not in self.item_labels]
        return logits[self.item_labels].logsumexp(0) - logits[rest].logsumexp(0)


@cache
def segmentation_model(
    model: str, labels: tuple[str, ...], device: torch.device
) -> SegmentationModel | None:
    """The model of this name, loaded once; None for ""."""
    return SegmentationModel(model, labels, device) if model else None
