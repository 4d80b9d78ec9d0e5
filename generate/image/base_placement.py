"""Where a pretrained base computes: on a device, or offloaded to the machine's memory by accelerate."""

from typing import Any

import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module
from torch import nn

from catalog.errors import VitrineError
from generate.image.config import Offload, SamplingConfig
from generate.image.ip_adapter import AdaptedDenoiser
from pretrain.devices import Compute


def check_memory_settings(denoiser: object, compute: Compute, config: SamplingConfig) -> None:
    """VitrineError where `config` is to save memory that nothing takes."""
    wanted = [name for name in ("vae_slicing", "vae_tiling") if getattr(config, name)]
    wanted += ["offload"] if config.offload != "none" else []
    if not wanted:
        return
    if not isinstance(denoiser, AdaptedDenoiser):
        raise VitrineError(
            f"{wanted[0]} is {getattr(config, wanted[0])}, and this generator has no pretrained model "
            "whose memory it would save; leave it out."
        )
    if config.offload != "none" and compute.device.type == "cpu":
        raise VitrineError(
            f"offload is {config.offload}, and the images are computed on the CPU, from which nothing can "
            "be offloaded; leave it out, or use --device cuda."
        )


def place_networks(denoiser: Any, codec: Any, compute: Compute, offload: Offload) -> None:
    """Moves denoiser and codec to the device, in the precision; the codec stays in float32.

    `offload`: of the base's network and VAE; all else is small and stays on the device.
    """
    if isinstance(denoiser, AdaptedDenoiser):
        for part in (denoiser.base, codec.vae):
            remove_hook_from_module(part, recurse=True)
    if offload == "none":
        compute.place(denoiser)
        Compute(compute.device).place(codec)
        return
    cpu = torch.device("cpu")
    Compute(cpu, compute.precision).place(denoiser)
    Compute(cpu).place(codec)
    _move_all_but(denoiser, "base", compute.device)
    _move_all_but(codec, "vae", compute.device)
    if offload == "model":
        _, hook = cpu_offload_with_hook(denoiser.base, compute.device)
        cpu_offload_with_hook(codec.vae, compute.device, prev_module_hook=hook)
    else:
        for part in (denoiser.base, codec.vae):
            cpu_offload(part, compute.device, offload_buffers=True)


def _move_all_but(module: nn.Module, name: str, device: torch.device) -> None:
    """Moves to the device what is in `module`, but not in its child `name`."""
    for child_name, child in module.named_children():
        if child_name != name:
            child.to(device)
    for buffer_name, buffer in module.named_buffers(recurse=False):
        setattr(module, buffer_name, buffer.to(device))
