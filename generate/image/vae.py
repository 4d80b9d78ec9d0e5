"""The codec of a pretrained base: images ↔ latents by its VAE (variational autoencoder), kept frozen."""

import json

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from generate.image.resolution_buckets import ImageSize, ResolutionBuckets


class VaeCodec(ResolutionBuckets, nn.Module):
    """Images ↔ latents by a pretrained VAE."""

    def __init__(self, vae: AutoencoderKL, buckets: list[ImageSize]) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        self.config = {
            "patch_size": downsampling_factor(vae),
            "channels": int(vae.config["latent_channels"]),
            "resolution_buckets": [list(bucket) for bucket in buckets],
        }

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → latents float32 (batch, channels, rows, columns)."""
        pixels = images.permute(0, 3, 1, 2).to(self.device, self.vae.dtype) / 127.5 - 1
        mean = self.vae.encode(pixels, return_dict=False)[0].mean
        shift = self.vae.config.get("shift_factor") or 0.0
        return ((mean - shift) * self.vae.config["scaling_factor"]).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        shift = self.vae.config.get("shift_factor") or 0.0
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config["scaling_factor"] + shift
        pixels = self.vae.decode(scaled, return_dict=False)[0].float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def fingerprint(self) -> bytes:
        first = next(iter(self.vae.state_dict().values()))
        return json.dumps(self.config).encode() + first.float().cpu().numpy().tobytes()


def downsampling_factor(vae: AutoencoderKL) -> int:
    """Pixels per side of one latent position."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)
