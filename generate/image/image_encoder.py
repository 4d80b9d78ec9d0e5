"""Image encoders for scoring generated images; no generator is conditioned on them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from catalog.errors import VitrineError
from catalog.images import fit_image
from pretrain.devices import Compute, on_cpu
from pretrain.hub import read_model
from pretrain.modalities.image import normalize_pixels
from pretrain.towers.image_processor import read_image_processor

ENCODE_BATCH = 32

AnyImage = Image.Image | NDArray[np.uint8]
"""A PIL image, or uint8 (height, width, 3)."""


class ImageEncoder(Protocol):
    """Images → features."""

    def features(self, images: Sequence[AnyImage]) -> Tensor:
        """Images of any size → float32 (images, width)."""
        ...


class PretrainedImageEncoder:
    """A Hugging Face image encoder, by name or folder: its pooled output, or the mean of its last layer."""

    def __init__(self, name: str, compute: Compute | None = None) -> None:
        """`compute`: device; features are float32. Raises VitrineError where it cannot be loaded."""
        model = read_model(name, what="image_encoder").eval()
        self.model = getattr(model, "vision_model", model)  # the image half of CLIP
        size = getattr(self.model.config, "image_size", None)
        if self.model.main_input_name != "pixel_values" or not isinstance(size, int):
            raise VitrineError(
                f"image_encoder {name!r} ({self.model.config.model_type}) has no image_size or takes no "
                "pixel_values; name an image encoder"
            )
        self.device = (compute or on_cpu()).device
        Compute(self.device).place(self.model)
        self.size = size
        processor = read_image_processor(name)
        self.mean, self.std = processor.mean, processor.std

    @torch.inference_mode()
    def features(self, images: Sequence[AnyImage]) -> Tensor:
        parts = []
        for start in range(0, len(images), ENCODE_BATCH):
            squares = to_squares(images[start : start + ENCODE_BATCH], self.size)
            pixels = normalize_pixels(squares, self.mean, self.std).to(self.device)
            output = self.model(pixel_values=pixels)
            pooled = getattr(output, "pooler_output", None)
            pooled = output.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)
            parts.append(pooled.float().cpu())
        return torch.cat(parts)


def to_squares(images: Sequence[AnyImage], size: int) -> NDArray[np.uint8]:
    """Images of any size, letter-boxed → uint8 (images, size, size, 3)."""
    opened = [one if isinstance(one, Image.Image) else Image.fromarray(one) for one in images]
    return np.stack([fit_image(one, size) for one in opened])
