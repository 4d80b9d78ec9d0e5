"""Resolution buckets: a few image shapes of about equal area that most of a catalog's images are close to.

All images of a training step have the same shape, so each image is letter-boxed into its nearest bucket.
"""

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import BrokenFileError, VitrineError
from catalog.images import read_image_shape
from generate.image.config import ImageConfig

ImageSize = tuple[int, int]
"""(height, width) in pixels."""
AREA_TOLERANCE = 0.25
"""Fraction by which a bucket's area may differ from image_size²."""


class ResolutionBuckets:
    """Mixin of codecs: resolution buckets and latent grids, from the `config` and `decode` of a codec."""

    config: Any  # an attribute here, a property of diffusers' models

    @property
    def buckets(self) -> list[ImageSize]:
        """Image sizes, the most common first."""
        return [(height, width) for height, width in self.config["resolution_buckets"]]

    def latent_grid(self, size: ImageSize) -> tuple[int, int]:
        """(rows, columns) of the latents of an image of this size."""
        patch = int(self.config["patch_size"])
        return size[0] // patch, size[1] // patch

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def decode_latents(self, latents: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        return self.decode(torch.from_numpy(latents.astype(np.float32))).cpu().numpy()


def choose_resolution_buckets(
    catalog: Catalog, config: ImageConfig, patch_size: int
) -> list[ImageSize]:
    """At most `config.num_resolution_buckets` image sizes of about image_size² pixels, those nearest to most
    images of a sample, the most common first. VitrineError where no image can be read."""
    sides = range(patch_size, 3 * config.image_size, patch_size)
    area = config.image_size**2
    sizes = [
        (height, width)
        for height in sides
        for width in sides
        if abs(height * width / area - 1) <= AREA_TOLERANCE
    ]
    sizes.sort(key=lambda size: abs(size[0] * size[1] - area))  # the first of equal aspect ratios
    counts: Counter[int] = Counter()
    for item in np.random.default_rng(config.trainer.seed).permutation(catalog.num_items):
        shape = image_shape(catalog, int(item))
        if shape is not None:
            counts[nearest_bucket(shape, sizes)] += 1
        if sum(counts.values()) == config.codec.fit_images:
            break
    if not counts:
        raise no_images_error(catalog)
    return [sizes[index] for index, _ in counts.most_common(config.num_resolution_buckets)]


def image_shape(catalog: Catalog, item: int) -> ImageSize | None:
    """(height, width) of the item's image file, from its header; None without a readable one."""
    path = catalog.media_path(item)
    if path is None:
        return None
    try:
        return read_image_shape(path)
    except BrokenFileError as reason:
        catalog.broken_images[item] = str(reason)
        return None


def nearest_bucket(shape: ImageSize, buckets: list[ImageSize]) -> int:
    """Index of the bucket with the nearest aspect ratio."""
    ratio = np.log(shape[0] / shape[1])
    return int(np.argmin([abs(np.log(height / width) - ratio) for height, width in buckets]))


def check_image_size(config: ImageConfig, multiple: int, name: str) -> None:
    """VitrineError where `image_size` is not a multiple of what the codec or base needs."""
    if config.image_size % multiple:
        below = config.image_size // multiple * multiple
        raise VitrineError(
            f"image_size {config.image_size} is not a multiple of {name} {multiple}; try "
            f"{max(below, multiple)} or {below + multiple}."
        )
    if config.num_resolution_buckets < 1:
        raise VitrineError(
            f"num_resolution_buckets is {config.num_resolution_buckets}; give 1 or more."
        )


def no_images_error(catalog: Catalog) -> VitrineError:
    return VitrineError(
        f"the catalog {catalog.name!r} has no readable image; an image generator needs some."
    )
