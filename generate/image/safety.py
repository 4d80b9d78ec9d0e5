"""Refuses pictures that a classifier calls unsafe: any image classifier of the Hugging Face hub."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification
from transformers.utils import logging

from catalog.errors import VitrineError
from pretrain.artifact import without_bars
from pretrain.hub import read_image_normalization, read_model
from pretrain.modalities.image import normalize_pixels

Check = Callable[[Sequence[Image.Image]], list[str]]
"""Pictures → of each why it may not be shown, "" if it may. A function of one's own serves, too."""


class SafetyChecker:
    """A picture is refused where the labels named are together likelier than `above`."""

    def __init__(self, model: str, labels: Sequence[str], above: float = 0.5) -> None:
        """`model`: a classifier's name on the hub, or its folder; VitrineError where it cannot be read
        or has none of the labels."""
        with without_bars(logging):
            self.model = read_model(model, AutoModelForImageClassification, "safety_model").eval()
        self.mean, self.std = read_image_normalization(model)
        named = {
            str(name).lower(): int(place) for place, name in self.model.config.id2label.items()
        }
        self.labels = {name: named[name] for name in map(str.lower, labels) if name in named}
        if not self.labels:
            raise VitrineError(
                f"safety_model {model!r} knows none of {', '.join(labels)}; it tells "
                f"{', '.join(named)}: name those to refuse with --safety_labels."
            )
        self.above = above
        self.size = int(getattr(self.model.config, "image_size", 224))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        small = [picture.convert("RGB").resize((self.size, self.size)) for picture in pictures]
        squares = np.stack([np.asarray(one) for one in small])
        inputs = normalize_pixels(squares, self.mean, self.std)
        shares = self.model(inputs.to(self.model.device)).logits.softmax(-1).cpu()
        unsafe = shares[:, list(self.labels.values())]
        worst = unsafe.argmax(1).tolist()
        names = list(self.labels)
        return [
            f"called {names[place]} by the safety model" if total > self.above else ""
            for total, place in zip(unsafe.sum(1).tolist(), worst, strict=True)
        ]
