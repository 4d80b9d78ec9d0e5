"""Images: a column of paths, encoded by a Hugging Face image tower."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from inspect import signature
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.images import (
    REDUCED,
    Resize,
    fit_image,
    read_image,
    read_resized_image,
    resample_bicubic,
)
from pretrain.augmentation import augment
from pretrain.config import AugmentationConfig, ModalityConfig
from pretrain.hub import make_config
from pretrain.modalities.base import (
    Processor,
    TowerModality,
    mask_of,
    present_rows,
    tower_spec,
)
from pretrain.modalities.media import MediaCache, MediaSource
from pretrain.towers.build import tower_class
from pretrain.towers.image_processor import ImageProcessor, read_image_processor

DEFAULT_SIZE = 64
"""Width and height in pixels for towers built from a config."""
CONVOLUTIONAL_PATCH = 8
"""Side in pixels of what counts as a patch in convolutional towers: their first maps are large, and with
many images in a batch they fall out of a CPU's cache."""
RESIZED = 256 / 224
"""Image processors that crop resize to more than they return, by about this factor."""
DECODED = 3
"""Increased when images are decoded to other pixels, so that cached ones are decoded again."""
LOOKED_UP = 1 << 17
"""Pixels normalised at once: OpenCV starts threads for more, and a process forked after that may hang."""
RESCALED = (np.arange(256) * (1 / 255)).astype(np.float32)
"""Pixels from 0 to 1 by grey level."""


class ImageSource(MediaSource):
    """Pixels (k, …, 3, height, width), normalised for the tower."""

    def __init__(self, cache: MediaCache, spec: dict[str, Any]) -> None:
        super().__init__(cache)
        self.spec = spec

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.cache.present[items]
        values = self.cache.values[present_rows(present, items)]  # (k, …, height, width, 3)
        pixels = normalize_as(self.spec, np.asarray(values))
        return {"present": mask_of(present), "pixel_values": pixels}

    def picture_of(self, item: int) -> NDArray[np.uint8] | None:
        """uint8 (height, width, 3) as it was decoded."""
        return np.asarray(self.cache.values[item]) if self.cache.present[item] else None


def normalize_as(spec: dict[str, Any], pictures: NDArray[np.uint8]) -> Tensor:
    """Normalises uint8 (…, height, width, 3) as a modality's `spec` says: float32 (…, 3, height, width)."""
    return normalize_pixels(pictures, spec["mean"], spec["std"], "processor" in spec)


def normalize_pixels(
    pictures: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], rescaled: bool = False
) -> Tensor:
    """Normalises uint8 (…, height, width, 3) by mean and standard deviation of pixels from 0 to 1: float32
    (…, 3, height, width). `rescaled`: rounded in the order in which image processors of transformers round,
    so that the tower's inputs are theirs to the bit."""
    table = _normalized_levels(tuple(mean), tuple(std), rescaled)
    levels = np.ascontiguousarray(pictures).reshape(-1, 1, 3)
    values = np.empty(levels.shape, dtype=np.float32)
    for start in range(0, len(levels), LOOKED_UP):
        part = slice(start, start + LOOKED_UP)
        cv2.LUT(levels[part], table, values[part])
    return torch.from_numpy(values.reshape(pictures.shape)).movedim(-1, -3)


@lru_cache
def _normalized_levels(
    mean: tuple[float, ...], std: tuple[float, ...], rescaled: bool
) -> NDArray[np.float32]:
    """The normalised value of each grey level in each channel: (256, 1, 3)."""
    levels = RESCALED if rescaled else np.arange(256, dtype=np.float32)
    scale = 1 if rescaled else 255
    middle, spread = (torch.tensor(part) * scale for part in (mean, std))
    table = (torch.from_numpy(levels)[:, None] - middle) / spread
    return table.numpy().reshape(256, 1, 3)


class ImageModality(TowerModality):
    kind = "image"
    reads = "pixel_values"

    @cached_property
    def resize(self) -> Resize:
        """How images of any size are brought to the tower's size."""
        return resize_of(self.spec)

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["ImageModality", None]:
        catalog.check_column(settings.source)
        kind = cls(image_tower_spec(settings))
        return kind.with_width(**kind.inputs(torch.zeros(1, 3, *shape_of(kind.spec)))), None

    @property
    @override
    def tokens(self) -> int:
        return image_tokens(self.spec)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"]
        if tower.training and "augmentation" in self.spec:
            pixels = augment(self.spec, pixels)
        return self.pooled(tower, **self.inputs(pixels))

    def inputs(self, pixels: Tensor) -> dict[str, Any]:
        """The tower's inputs for normalised `pixels` (k, 3, height, width)."""
        return image_inputs(self.spec, pixels)

    def pixels(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Preprocesses images (height, width, 3) of any size for the tower: (n, 3, height, width)."""
        resized = [self.resize(Image.fromarray(picture)) for picture in pictures]
        return normalize_as(self.spec, np.stack(resized))

    def open(self, catalog: Catalog, processor: Processor | None) -> ImageSource:
        column = self.spec["source"]
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{preprocessing_key(self.spec)}",
            (*shape_of(self.spec), 3),
            np.uint8,
            self._read,
            "Decoding pictures",
        )
        return ImageSource(cache, self.spec)

    def _read(self, path: str) -> NDArray[np.uint8]:
        if "processor" not in self.spec:
            return read_image(path, self.spec["image_size"], resample=resample)
        if not self.spec.get("scaled_decoding"):
            return read_resized_image(path, self.resize)
        height, width = (math.ceil(RESIZED * side) for side in shape_of(self.spec))
        return read_resized_image(path, self.resize, (height, width))


def image_tower_spec(settings: ModalityConfig) -> dict[str, Any]:
    """As `tower_spec`, with image size, mean, standard deviation, and the checkpoint's image processor."""
    augmentation = asdict(settings.augmentation)
    changes: dict[str, Any] = (
        {} if settings.augmentation == AugmentationConfig() else {"augmentation": augmentation}
    )
    if not settings.model:
        size = settings.image_size or DEFAULT_SIZE
        spec = tower_spec(settings, image_size=size) | changes
        patch = spec["tower"].get("patch_size")
        if isinstance(patch, int) and patch > size:
            raise VitrineError(
                f"image_size is {size}, less than a patch of {patch}; use {patch} or more, or "
                "a smaller patch_size"
            )
        return spec | {"image_size": size, "mean": [0.5] * 3, "std": [0.5] * 3}
    if settings.scaled_decoding:
        changes |= {"scaled_decoding": True}
    spec = tower_spec(settings) | changes
    processor = read_image_processor(settings.model, settings.pad_to_square)
    if settings.image_size and processor.shape != (settings.image_size,) * 2:
        processor = processor.resized(settings.image_size)
    height, width = processor.shape
    own = spec["tower"].get("image_size")
    forward = tower_class(make_config(spec["tower"])).forward
    interpolates = "interpolate_pos_encoding" in signature(forward).parameters
    return spec | {
        "image_size": height if height == width else [height, width],
        "mean": processor.mean,
        "std": processor.std,
        "processor": processor.values,
        "interpolate": interpolates and own is not None and _pair(own) != (height, width),
    }


def shape_of(spec: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of the images that a tower reads."""
    return _pair(spec["image_size"])


def resize_of(spec: dict[str, Any]) -> Resize:
    """How images are brought to a tower's size: by its checkpoint's processor, or letter-boxed."""
    if "processor" in spec:
        return ImageProcessor(spec["processor"])
    return lambda image: fit_image(image, spec["image_size"], resample=resample)


def resample(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """As `resample_bicubic` to within two grey levels, by torch's vectorised kernel: the same pixels whatever
    the processor."""
    width, height = size
    if image.width > REDUCED * width or image.height > REDUCED * height:
        return resample_bicubic(image, size)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    small = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def preprocessing_key(spec: dict[str, Any]) -> str:
    """Identifies how images are resized: equal keys, equal pixels."""
    processor = spec.get("processor")
    scaled = processor is None or spec.get("scaled_decoding", False)
    return json.dumps([DECODED, spec["image_size"], processor, scaled], sort_keys=True)


def image_inputs(spec: dict[str, Any], pixels: Tensor) -> dict[str, Any]:
    """The inputs of an image tower for normalised `pixels` (k, 3, height, width)."""
    if spec["tower"]["model_type"] == "siglip2_vision_model":
        return naflex_inputs(pixels, spec["tower"]["patch_size"])
    options = {"interpolate_pos_encoding": True} if spec.get("interpolate") else {}
    return {"pixel_values": pixels, **options}


def naflex_inputs(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """SigLIP 2's inputs: patches (k, n, patch · patch · 3), their mask, and rows and columns of patches."""
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    cut = pixels.unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (k, rows · columns, …)
    shape = torch.tensor([[rows, columns]], device=pixels.device).expand(len(pixels), 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shape}


def image_tokens(spec: dict[str, Any]) -> int:
    """Approximate number of patches of an image in its tower; for a convolutional one a number of patches
    that take about as much memory."""
    patch = _pair(spec["tower"].get("patch_size") or CONVOLUTIONAL_PATCH)
    height, width = shape_of(spec)
    return max(1, (height // patch[0]) * (width // patch[1]))


def _pair(size: Any) -> tuple[int, int]:
    return (
        (int(size[0]), int(size[-1])) if isinstance(size, list | tuple) else (int(size), int(size))
    )
