"""The codec: images ↔ latents by principal components of patches, fitted in closed form.

A learned autoencoder (VAE) needs minutes of training before its colours are right; principal components
of patches keep them exactly and are fitted in a second. The VAE of a pretrained base is in
`generate/image/vae.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.image.config import ImageConfig
from generate.image.resolution_buckets import (
    ImageSize,
    ResolutionBuckets,
    check_image_size,
    choose_resolution_buckets,
    image_shape,
    nearest_bucket,
    no_images_error,
)


@runtime_checkable  # diffusers checks the types of a pipeline's parts
class Codec(Protocol):
    """Encodes images as latents and back; each latent position represents a square of pixels."""

    @property
    def config(self) -> Mapping[str, Any]:
        """`patch_size`: pixels per side of that square; `channels` of a latent; `resolution_buckets`."""
        ...

    @property
    def buckets(self) -> list[ImageSize]: ...

    def latent_grid(self, size: ImageSize) -> tuple[int, int]: ...

    def fingerprint(self) -> bytes: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...

    def decode_latents(self, latents: NDArray[np.floating]) -> NDArray[np.uint8]: ...

    def to(self, *_: Any, **__: Any) -> Any: ...


class PatchCodec(ResolutionBuckets, ModelMixin, ConfigMixin):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Principal components of patches that overlap a little: z = S⁻¹ B (window · patch − mean).

    The rows of B are the components with the largest variance λ; S holds λ^(whitening/2), scaled so
    that a latent has variance 1 on average, as the noise it is mixed with has. The window falls off
    over 2 · `overlap` pixels at each seam as a sine, so that the squares of neighbours sum to 1
    (a lapped transform, Princen & Bradley 1986): patches fade into each other, without seams.
    """

    window: Tensor
    mean: Tensor
    basis: Tensor
    scale: Tensor

    @register_to_config
    def __init__(
        self,
        patch_size: int = 16,
        channels: int = 128,
        overlap: int = 2,
        resolution_buckets: Sequence[Sequence[int]] = ((64, 64),),
    ) -> None:
        """`resolution_buckets`: the codec's image sizes (height, width) in pixels, the most common first."""
        super().__init__()
        side = torch.ones(patch_size + 2 * overlap)
        if overlap:
            rise = torch.sin((torch.arange(2 * overlap) + 0.5) / (2 * overlap) * torch.pi / 2)
            side[: 2 * overlap], side[-2 * overlap :] = rise, rise.flip(0)
        window = torch.outer(side, side).repeat(3, 1, 1).flatten()
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mean", torch.zeros(len(window)))
        self.register_buffer("basis", torch.zeros(channels, len(window)))
        self.register_buffer("scale", torch.ones(channels))

    @classmethod
    def fit(
        cls,
        images: Sequence[NDArray[np.uint8]],
        patch_size: int = 16,
        channels: int = 128,
        overlap: int = 2,
        whitening: float = 0.4,
    ) -> Self:
        """The codec fitted to `images`: for each bucket uint8 (num_images, height, width, 3)."""
        buckets = [batch.shape[1:3] for batch in images]
        codec = cls(patch_size, channels, overlap, buckets)
        patches = torch.cat(
            [codec._patches(torch.from_numpy(batch)).flatten(0, 2) for batch in images]
        )
        mean = patches.mean(0)
        covariance = torch.cov(patches.T.double(), correction=0)
        variances, components = torch.linalg.eigh(covariance)  # ascending
        variances = variances.flip(0)[:channels].clamp_min(1e-8)
        scale = variances ** (whitening / 2)
        scale = scale * (variances / scale.square()).mean().sqrt()
        codec.mean.copy_(mean)
        codec.basis.copy_(components.flip(1)[:, :channels].T)
        codec.scale.copy_(scale)
        return codec

    def fingerprint(self) -> bytes:
        """Bytes that differ between codecs of different weights."""
        return b"".join(part.numpy().tobytes() for part in (self.mean, self.basis, self.scale))

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → latents float32 (batch, channels, rows, columns)."""
        latents = (self._patches(images) - self.mean) @ self.basis.T / self.scale
        return latents.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        patches = (latents.permute(0, 2, 3, 1) * self.scale) @ self.basis + self.mean
        pixels = self._overlay(patches * self.window)
        # At the image border no neighbour compensates for the window.
        pixels = pixels / self._overlay(self.window.square().expand_as(patches[:1]))
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1)

    def _patches(self, images: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → windowed (batch, rows, columns, values of a patch)."""
        size, overlap = self.config["patch_size"], self.config["overlap"]
        pixels = images.permute(0, 3, 1, 2).to(self.mean.dtype) / 127.5 - 1
        rows = pixels.shape[2] // size
        padded = F.pad(pixels, (overlap,) * 4, mode="reflect")
        flat = F.unfold(padded, size + 2 * overlap, stride=size).transpose(1, 2)
        return (flat * self.window).unflatten(1, (rows, -1))

    def _overlay(self, patches: Tensor) -> Tensor:
        """(batch, rows, columns, values of a patch) → their sum (batch, 3, height, width)."""
        size, overlap = self.config["patch_size"], self.config["overlap"]
        height, width = (count * size for count in patches.shape[1:3])
        flat = patches.flatten(1, 2).transpose(1, 2)
        padded = (height + 2 * overlap, width + 2 * overlap)
        summed = F.fold(flat, padded, size + 2 * overlap, stride=size)
        return summed[:, :, overlap : overlap + height, overlap : overlap + width]


def fit_codec(catalog: Catalog, config: ImageConfig) -> PatchCodec:
    """The codec fitted to a sample of the catalog's images, each in its nearest resolution bucket."""
    check_image_size(config, config.codec.patch_size, "the codec's patch_size")
    settings = config.codec
    patch = settings.patch_size
    if not 0 <= settings.overlap <= patch // 2:
        raise VitrineError(
            f"codec.overlap {settings.overlap} is not between 0 and half the patch_size, {patch // 2}."
        )
    values = 3 * (patch + 2 * settings.overlap) ** 2
    if settings.channels > values:
        raise VitrineError(
            f"codec.channels {settings.channels} is more than the {values} values of a patch; "
            f"use {values} or fewer."
        )
    buckets = choose_resolution_buckets(catalog, config, patch)
    sample: dict[ImageSize, list[NDArray[np.uint8]]] = {bucket: [] for bucket in buckets}
    order = np.random.default_rng(config.trainer.seed).permutation(catalog.num_items)
    for item in order.tolist():
        shape = image_shape(catalog, item)
        bucket = buckets[nearest_bucket(shape, buckets)] if shape else None
        image = catalog.item_image(item, bucket) if bucket else None
        if bucket is not None and image is not None:
            sample[bucket].append(image)
        if sum(map(len, sample.values())) == settings.fit_images:
            break
    buckets = [bucket for bucket in buckets if sample[bucket]]
    if not buckets:
        raise no_images_error(catalog)
    stacks = [np.stack(sample[bucket]) for bucket in buckets]
    return PatchCodec.fit(stacks, patch, settings.channels, settings.overlap, settings.whitening)


def peak_signal_to_noise(images: NDArray[np.uint8], copies: NDArray[np.uint8]) -> float:
    """PSNR in dB between uint8 images of the same shape, such as what a codec was given and what it gives
    back; infinite where a codec loses nothing."""
    error = np.square(images.astype(np.float64) - copies).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
