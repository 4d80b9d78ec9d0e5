"""Safety checker: rejects images to which a Hugging Face image classifier gives an unsafe label."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageClassification
from transformers.utils import logging

from catalog.errors import VitrineError
from pretrain.artifact import without_bars
from pretrain.hub import read_model
from pretrain.modalities.image import normalize_pixels
from pretrain.towers.image_processor import read_image_processor

SafetyCheck = Callable[[Sequence[Image.Image]], list[str]]
"""Images → for each the reason for its rejection, "" if it is accepted."""


class SafetyChecker:
    """Rejects an image if the unsafe labels together have a probability above `threshold`."""

    def __init__(
        self,
        model: str,
        labels: Sequence[str],
        threshold: float = 0.5,
        device: torch.device | None = None,
    ) -> None:
        """`model`: a classifier's name on the hub, or its folder; VitrineError where it cannot be loaded
        or has none of the labels."""
        with without_bars(logging):
            self.model = read_model(model, AutoModelForImageClassification, "safety_model").eval()
        nn.Module.to(self.model, device)
        processor = read_image_processor(model)
        self.mean, self.std = processor.mean, processor.std
        indices = {
            str(name).lower(): int(index) for index, name in self.model.config.id2label.items()
        }
        self.labels = {name: indices[name] for name in map(str.lower, labels) if name in indices}
        if not self.labels:
            raise VitrineError(
                f"safety_model {model!r} has none of the labels {', '.join(labels)}; it has "
                f"{', '.join(indices)}: name those to reject with --safety_labels."
            )
        self.threshold = threshold
        self.size = int(getattr(self.model.config, "image_size", 224))

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        small = [image.convert("RGB").resize((self.size, self.size)) for image in images]
        squares = np.stack([np.asarray(one) for one in small])
        inputs = normalize_pixels(squares, self.mean, self.std)
        probabilities = self.model(inputs.to(self.model.device)).logits.softmax(-1).cpu()
        unsafe = probabilities[:, list(self.labels.values())]
        worst = unsafe.argmax(1).tolist()
        names = list(self.labels)
        return [
            f"labelled {names[index]} by the safety model" if total > self.threshold else ""
            for total, index in zip(unsafe.sum(1).tolist(), worst, strict=True)
        ]


def combine_checks(checks: Sequence[SafetyCheck]) -> SafetyCheck | None:
    """Returns one check that gives the first reason of any of `checks`; None for no checks."""
    if not checks:
        return None

    def first_reason(images: Sequence[Image.Image]) -> list[str]:
        reasons = zip(*(check(images) for check in checks), strict=True)
        return [next(filter(None, each), "") for each in reasons]

    return first_reason
