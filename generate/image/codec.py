"""Pictures ↔ latents by a linear map of patches, found in closed form; knows nothing about people.

A learned autoencoder needs minutes before its colours are right; principal components of patches
keep them exactly, and are found in a second.
"""

from typing import Self

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class PatchCodec(ModelMixin, ConfigMixin):
    """Principal components of non-overlapping patches: z = S⁻¹ B (patch − mean).

    The rows of B are the components with the largest variance λ; S holds λ^(whitening/2), scaled so
    that a latent has variance 1 on average, as the noise it is mixed with has.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    @register_to_config
    def __init__(self, patch_size: int = 8, channels: int = 48) -> None:
        super().__init__()
        numbers = 3 * patch_size**2
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("basis", torch.zeros(channels, numbers))
        self.register_buffer("scale", torch.ones(channels))

    @classmethod
    def fit(
        cls,
        pictures: NDArray[np.uint8],
        patch_size: int = 8,
        channels: int = 48,
        whitening: float = 0.5,
    ) -> Self:
        """The codec of `pictures` uint8 (num_pictures, size, size, 3)."""
        codec = cls(patch_size, channels)
        patches = codec._patches(torch.from_numpy(pictures)).flatten(0, 2).double()
        mean = patches.mean(0)
        centred = patches - mean
        covariance = centred.T @ centred / len(patches)
        variances, components = torch.linalg.eigh(covariance)  # ascending
        variances = variances.flip(0)[:channels].clamp_min(1e-8)
        scale = variances ** (whitening / 2)
        scale = scale * (variances / scale.square()).mean().sqrt()
        codec.mean.copy_(mean)
        codec.basis.copy_(components.flip(1)[:, :channels].T)
        codec.scale.copy_(scale)
        return codec

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (batch, size, size, 3) → latents float32 (batch, channels, rows, columns)."""
        latents = (self._patches(pictures) - self.mean) @ self.basis.T / self.scale
        return latents.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, size, size, 3)."""
        patches = (latents.permute(0, 2, 3, 1) * self.scale) @ self.basis + self.mean
        batch, rows, columns, _ = patches.shape
        flat = patches.reshape(batch, rows * columns, -1).transpose(1, 2)
        size = self.config["patch_size"]
        pixels = F.fold(flat, (rows * size, columns * size), size, stride=size)
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1)

    def _patches(self, pictures: Tensor) -> Tensor:
        """uint8 (batch, size, size, 3) → (batch, rows, columns, 3 · patch²) within −1 … 1."""
        size = self.config["patch_size"]
        pixels = pictures.permute(0, 3, 1, 2).to(self.mean.dtype) / 127.5 - 1
        rows = pixels.shape[2] // size
        flat = F.unfold(pixels, size, stride=size).transpose(1, 2)
        return flat.unflatten(1, (rows, -1))


def peak_signal_to_noise(pictures: NDArray[np.uint8], copies: NDArray[np.uint8]) -> float:
    """PSNR in dB between pictures uint8 of the same shape; infinite where they are equal."""
    error = np.square(pictures.astype(np.float64) - copies).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
