"""Images: a column of paths, encoded by any Hugging Face image tower."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.images import fit_image, read_image
from pretrain.config import ModalityConfig
from pretrain.hub import read_image_normalization
from pretrain.modalities.base import (
    Processor,
    TowerModality,
    mask_of,
    present_rows,
    tower_spec,
)
from pretrain.modalities.media import MediaCache, MediaSource


class ImageSource(MediaSource):
    """Pixels (k, …, 3, size, size), normalised by the tower's mean and standard deviation."""

    def __init__(self, cache: MediaCache, mean: list[float], std: list[float]) -> None:
        super().__init__(cache)
        self.mean = mean
        self.std = std

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.cache.present[items]
        values = self.cache.values[present_rows(present, items)]  # (k, …, size, size, 3)
        pixels = normalize_pixels(np.asarray(values), self.mean, self.std)
        return {"present": mask_of(present), "pixel_values": pixels}

    def picture_of(self, item: int) -> NDArray[np.uint8] | None:
        """uint8 (size, size, 3) as it was decoded."""
        return np.asarray(self.cache.values[item]) if self.cache.present[item] else None


def normalize_pixels(
    pictures: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Normalises uint8 (…, size, size, 3) by mean and standard deviation: float32 (…, 3, size, size)."""
    pixels = torch.from_numpy(pictures).movedim(-1, -3).float()
    middle, spread = (torch.tensor(part).view(3, 1, 1) * 255 for part in (mean, std))
    return (pixels - middle) / spread


class ImageModality(TowerModality):
    kind = "image"
    reads = "pixel_values"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["ImageModality", None]:
        catalog.check_column(settings.source)
        return cls(image_tower_spec(settings)), None

    @property
    @override
    def tokens(self) -> int:
        return image_tokens(self.spec)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.pooled(tower, pixel_values=inputs["pixel_values"])

    def pixels(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Preprocesses images (height, width, 3) of any size for the tower: (n, 3, size, size)."""
        size = self.spec["image_size"]
        squares = [fit_image(Image.fromarray(picture), size) for picture in pictures]
        return normalize_pixels(np.stack(squares), self.spec["mean"], self.spec["std"])

    def open(self, catalog: Catalog, processor: Processor | None) -> ImageSource:
        size, column = self.spec["image_size"], self.spec["source"]
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{size}",
            (size, size, 3),
            np.uint8,
            lambda path: read_image(path, size),
            "Decoding pictures",
        )
        return ImageSource(cache, self.spec["mean"], self.spec["std"])


def image_tower_spec(settings: ModalityConfig) -> dict[str, Any]:
    """As `tower_spec`, with the tower's image size, mean and standard deviation."""
    if not settings.model:
        spec = tower_spec(settings, image_size=settings.image_size)
        patch = spec["tower"].get("patch_size")
        if isinstance(patch, int) and patch > settings.image_size:
            raise VitrineError(
                f"image_size is {settings.image_size}, less than a patch of {patch}; use {patch} or more, or "
                "a smaller patch_size"
            )
        return spec | {"image_size": settings.image_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    spec = tower_spec(settings)
    mean, std = read_image_normalization(settings.model)
    return spec | {"image_size": _size_of(settings, spec["tower"]), "mean": mean, "std": std}


def image_tokens(spec: dict[str, Any]) -> int:
    """Approximate number of patches of an image in its tower."""
    patch = spec["tower"].get("patch_size") or 16
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    return max(1, int(spec["image_size"]) // int(patch)) ** 2


def _size_of(settings: ModalityConfig, tower: dict[str, Any]) -> int:
    """The image size: that of a pretrained tower's config, otherwise that of the settings."""
    size = tower.get("image_size", settings.image_size)
    return int(size[0] if isinstance(size, list | tuple) else size)
