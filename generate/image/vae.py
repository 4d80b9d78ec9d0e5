"""The codec of a pretrained base: images ↔ latents by its VAE (variational autoencoder), kept frozen."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from generate.image.resolution_buckets import ImageSize, ResolutionBuckets

BLOCKS = ("block_out_channels", "encoder_block_out_channels")
"""Names of a VAE's widths by level, each half the resolution of the one before."""


class VaeCodec(ResolutionBuckets, nn.Module):
    """Images ↔ latents by a pretrained VAE: a KL autoencoder, or a deep compression one (Sana)."""

    def __init__(self, vae: Any, buckets: list[ImageSize]) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        self.config = {
            "patch_size": downsampling_factor(vae.config),
            "channels": int(vae.config["latent_channels"]),
            "resolution_buckets": [list(bucket) for bucket in buckets],
        }
        mean, deviation = latent_moments(vae.config)
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("deviation", deviation[:, None, None], persistent=False)

    mean: Tensor
    """(channels, 1, 1): what is subtracted of the VAE's own latents."""
    deviation: Tensor
    """(channels, 1, 1): what they are then divided by."""

    @property
    def device(self) -> torch.device:
        """Where the latents are: that of the VAE, or the one it is moved to for each call."""
        return self.mean.device

    def save_memory(self, slicing: bool, tiling: bool) -> None:
        """`slicing`: images go through the VAE one at a time; `tiling`: in overlapping tiles."""
        for wanted, name in ((slicing, "slicing"), (tiling, "tiling")):
            getattr(self.vae, f"{'enable' if wanted else 'disable'}_{name}")()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → latents float32 (batch, channels, rows, columns)."""
        pixels = images.permute(0, 3, 1, 2).to(self.device, self.vae.dtype) / 127.5 - 1
        encoded = self.vae.encode(pixels, return_dict=False)[0]
        latents = encoded if isinstance(encoded, Tensor) else encoded.mean
        return ((latents - self.mean) / self.deviation).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, height, width, 3). One image at a time:
        convolutions and attention round by the size of the batch."""
        scaled = latents.to(self.device, self.vae.dtype) * self.deviation + self.mean
        decoded = [self.vae.decode(one, return_dict=False)[0] for one in scaled.split(1)]
        pixels = torch.cat(decoded).float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def fingerprint(self) -> bytes:
        first = next(iter(self.vae.state_dict().values()))
        scales = [part.flatten().tolist() for part in (self.mean, self.deviation)]
        settings = json.dumps([self.config, scales])
        return settings.encode() + first.float().cpu().numpy().tobytes()


def latent_moments(config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channels,) by which a VAE's config normalises its latents: those of each
    channel where they are given, else its shift and scaling factors."""
    channels = int(config["latent_channels"])
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    scale = 1 / float(config["scaling_factor"])
    if mean and deviation:
        return torch.tensor(mean), scale * torch.tensor(deviation)
    shift = float(config.get("shift_factor") or 0.0)
    return torch.full((channels,), shift), torch.full((channels,), scale)


def downsampling_factor(config: Mapping[str, Any]) -> int:
    """Pixels per side of one latent position, by a VAE's config."""
    levels = next(config[name] for name in BLOCKS if config.get(name))
    return 2 ** (len(levels) - 1)
