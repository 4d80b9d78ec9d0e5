"""Augmentation of images while a tower is trained: random resized crops, flips and colour jitter.

It runs where the tower runs, on whole batches, and draws from torch's generator, which is seeded for every
step: the stream is the same with any number of loader processes. Embedding never augments.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

RATIO = 4 / 3
"""Crops are at most this much wider than high, or higher than wide (Szegedy et al., 2015)."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def augment(spec: dict[str, Any], pixels: Tensor) -> Tensor:
    """Augments normalised images (k, 3, height, width), or clips (k, frames, 3, height, width), as the
    `augmentation` of a modality's `spec` says; all frames of a clip alike."""
    settings = spec["augmentation"]
    images = pixels if pixels.dim() == 5 else pixels.unsqueeze(1)
    if settings["crop_area"] < 1 or settings["flip"] > 0:
        images = crop_and_flip(images, settings["crop_area"], settings["flip"])
    if settings["color_jitter"] > 0:
        shape = (3, 1, 1)
        mean, std = (images.new_tensor(spec[name]).view(shape) for name in ("mean", "std"))
        jittered = jitter_colors(images * std + mean, settings["color_jitter"])
        images = (jittered - mean) / std
    return images.view_as(pixels)


def crop_and_flip(images: Tensor, smallest_area: float, flip: float) -> Tensor:
    """Random crops, resized to the whole, and horizontal flips with probability `flip`.

    `images` (k, frames, 3, height, width). The area of a crop is uniform from `smallest_area` to 1, its
    ratio log-uniform up to RATIO, as far as it fits.
    """
    k, frames, _, height, width = images.shape
    area, ratio, across, down, mirrored = torch.rand(5, k, device=images.device)
    area = smallest_area + (1 - smallest_area) * area
    ratio = (RATIO ** (2 * ratio - 1)).clamp(min=area, max=1 / area)
    wide, high = (area * ratio).sqrt(), (area / ratio).sqrt()
    signed = torch.where(mirrored < flip, -wide, wide)
    nothing = torch.zeros_like(area)
    # Rows of the affine map from places in the result to places in the image, both from −1 to 1.
    theta = torch.stack(
        [
            torch.stack([signed, nothing, (1 - wide) * (2 * across - 1)], dim=1),
            torch.stack([nothing, high, (1 - high) * (2 * down - 1)], dim=1),
        ],
        dim=1,
    )
    theta = theta.repeat_interleave(frames, dim=0)
    grid = F.affine_grid(theta, [k * frames, 3, height, width], align_corners=False)
    flat = images.flatten(0, 1).float()
    cropped = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return cropped.to(images.dtype).view_as(images)


def jitter_colors(images: Tensor, strength: float) -> Tensor:
    """Scales brightness, contrast and saturation by factors uniform in 1 ± `strength`.

    `images` (k, frames, 3, height, width) with values from 0 to 1.
    """
    drawn = torch.rand(3, len(images), 1, 1, 1, 1, device=images.device, dtype=images.dtype)
    brightness, contrast, saturation = (1 + strength * (2 * drawn - 1)).clamp(min=0)
    images = (images * brightness).clamp(0, 1)
    luma = images.new_tensor(LUMA).view(3, 1, 1)
    average = (images * luma).sum(2, keepdim=True).mean(dim=(1, 3, 4), keepdim=True)
    images = (average + contrast * (images - average)).clamp(0, 1)
    grey = (images * luma).sum(2, keepdim=True)
    return (grey + saturation * (images - grey)).clamp(0, 1)
