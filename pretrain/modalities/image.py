"""Pictures: a column of paths, read by any Hugging Face image tower."""

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
from pretrain.hub import read_colours
from pretrain.modalities.base import (
    Processor,
    TowerModality,
    describe_tower,
    mask_of,
    present_rows,
)
from pretrain.modalities.media import MediaCache, MediaSource


class PictureSource(MediaSource):
    """Pixels (k, …, 3, size, size), normalised as the tower is used to."""

    def __init__(self, cache: MediaCache, mean: list[float], std: list[float]) -> None:
        super().__init__(cache)
        self.mean = mean
        self.std = std

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.cache.present[items]
        values = self.cache.values[present_rows(present, items)]  # (k, …, size, size, 3)
        pixels = normalised(np.asarray(values), self.mean, self.std)
        return {"present": mask_of(present), "pixel_values": pixels}

    def picture_of(self, item: int) -> NDArray[np.uint8] | None:
        """uint8 (size, size, 3) as it was decoded."""
        return np.asarray(self.cache.values[item]) if self.cache.present[item] else None


def normalised(pictures: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(…, size, size, 3) → float32 (…, 3, size, size), with the tower's usual colours as 0 and 1."""
    pixels = torch.from_numpy(pictures).movedim(-1, -3).float()
    middle, spread = (torch.tensor(part).view(3, 1, 1) * 255 for part in (mean, std))
    return (pixels - middle) / spread


class Picture(TowerModality):
    kind = "image"
    reads = "pixel_values"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Picture", None]:
        catalog.check_column(settings.source)
        return cls(describe_image_tower(settings)), None

    @property
    @override
    def tokens(self) -> int:
        return picture_tokens(self.about)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.pooled(tower, pixel_values=inputs["pixel_values"])

    def pixels(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Pictures (height, width, 3) of any shape, as the tower takes them: (n, 3, size, size)."""
        size = self.about["image_size"]
        squares = [fit_image(Image.fromarray(picture), size) for picture in pictures]
        return normalised(np.stack(squares), self.about["mean"], self.about["std"])

    def open(self, catalog: Catalog, processor: Processor | None) -> PictureSource:
        size, column = self.about["image_size"], self.about["source"]
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{size}",
            (size, size, 3),
            np.uint8,
            lambda path: read_image(path, size),
            "Decoding pictures",
        )
        return PictureSource(cache, self.about["mean"], self.about["std"])


def describe_image_tower(settings: ModalityConfig) -> dict[str, Any]:
    """As `describe_tower`, with the size and the colours the tower is used to."""
    if not settings.model:
        about = describe_tower(settings, image_size=settings.image_size)
        patch = about["tower"].get("patch_size")
        if isinstance(patch, int) and patch > settings.image_size:
            raise VitrineError(
                f"image_size is {settings.image_size}, less than a patch of {patch}; use {patch} or more, or "
                "a smaller patch_size"
            )
        return about | {"image_size": settings.image_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    about = describe_tower(settings)
    mean, std = read_colours(settings.model)
    return about | {"image_size": _size_of(settings, about["tower"]), "mean": mean, "std": std}


def picture_tokens(about: dict[str, Any]) -> int:
    """About how many patches a picture is to its tower."""
    patch = about["tower"].get("patch_size") or 16
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    return max(1, int(about["image_size"]) // int(patch)) ** 2


def _size_of(settings: ModalityConfig, tower: dict[str, Any]) -> int:
    """A pretrained tower says its own size."""
    size = tower.get("image_size", settings.image_size)
    return int(size[0] if isinstance(size, list | tuple) else size)
