"""Pictures ↔ latents by a linear map of patches, found in closed form; knows nothing about people.

A learned autoencoder needs minutes before its colours are right; principal components of patches
keep them exactly, and are found in a second.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ImageSize = tuple[int, int]
"""(height, width) in pixels of the pictures that are kept alike."""


class Codec(Protocol):
    """Pictures ↔ latents, each position of which stands for a square of pixels."""

    config: Any
    """`patch_size`: pixels a side of that square; `channels`: numbers of a latent; `frames`."""

    @property
    def frames(self) -> list[ImageSize]: ...

    def grid_of(self, frame: ImageSize) -> ImageSize: ...

    def fingerprint(self) -> bytes: ...

    def encode(self, pictures: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...

    def decode_latents(self, latents: NDArray[np.floating]) -> NDArray[np.uint8]: ...

    def to(self, device: Any) -> Any: ...


class ResolutionBuckets:
    """What follows from a codec's `config` and its `decode`, whatever it is."""

    config: Any

    @property
    def frames(self) -> list[ImageSize]:
        return [(height, width) for height, width in self.config["frames"]]

    def grid_of(self, frame: ImageSize) -> ImageSize:
        """(rows, columns) of the latents of such a picture."""
        patch = int(self.config["patch_size"])
        return frame[0] // patch, frame[1] // patch

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def decode_latents(self, latents: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        return self.decode(torch.from_numpy(latents.astype(np.float32))).cpu().numpy()


class PatchCodec(ResolutionBuckets, ModelMixin, ConfigMixin):
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
        frames: Sequence[Sequence[int]] = ((64, 64),),
    ) -> None:
        """`frames`: (height, width) in pixels of the pictures it is for, the commonest first."""
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
        pictures: Sequence[NDArray[np.uint8]],
        patch_size: int = 16,
        channels: int = 128,
        overlap: int = 2,
        whitening: float = 0.4,
    ) -> Self:
        """The codec of `pictures`: of each frame uint8 (num_pictures, height, width, 3)."""
        frames = [alike.shape[1:3] for alike in pictures]
        codec = cls(patch_size, channels, overlap, frames)
        patches = torch.cat(
            [codec._patches(torch.from_numpy(alike)).flatten(0, 2) for alike in pictures]
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
        """Of codecs that are not the same, different."""
        return b"".join(part.numpy().tobytes() for part in (self.mean, self.basis, self.scale))

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → latents float32 (batch, channels, rows, columns)."""
        latents = (self._patches(pictures) - self.mean) @ self.basis.T / self.scale
        return latents.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        patches = (latents.permute(0, 2, 3, 1) * self.scale) @ self.basis + self.mean
        pixels = self._overlay(patches * self.window)
        # At the picture's edge no neighbour fills what the window takes away.
        pixels = pixels / self._overlay(self.window.square().expand_as(patches[:1]))
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1)

    def _patches(self, pictures: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → windowed (batch, rows, columns, numbers of a patch)."""
        size, overlap = self.config["patch_size"], self.config["overlap"]
        pixels = pictures.permute(0, 3, 1, 2).to(self.mean.dtype) / 127.5 - 1
        rows = pixels.shape[2] // size
        padded = F.pad(pixels, (overlap,) * 4, mode="reflect")
        flat = F.unfold(padded, size + 2 * overlap, stride=size).transpose(1, 2)
        return (flat * self.window).unflatten(1, (rows, -1))

    def _overlay(self, patches: Tensor) -> Tensor:
        """(batch, rows, columns, numbers of a patch) → their sum (batch, 3, height, width)."""
        size, overlap = self.config["patch_size"], self.config["overlap"]
        height, width = (count * size for count in patches.shape[1:3])
        flat = patches.flatten(1, 2).transpose(1, 2)
        padded = (height + 2 * overlap, width + 2 * overlap)
        summed = F.fold(flat, padded, size + 2 * overlap, stride=size)
        return summed[:, :, overlap : overlap + height, overlap : overlap + width]


def peak_signal_to_noise(pictures: NDArray[np.uint8], copies: NDArray[np.uint8]) -> float:
    """PSNR in dB between pictures uint8 of the same shape; infinite where they are equal."""
    error = np.square(pictures.astype(np.float64) - copies).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
