"""The devices a plan can be made for: their memory and number formats."""

import os
from dataclasses import dataclass, replace
from typing import TypeVar

from catalog.errors import VitrineError, did_you_mean
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

GIB = 2**30


@dataclass(frozen=True)
class Device:
    name: str
    memory: int
    """Bytes of one device that may be used."""
    on_gpu: bool
    bfloat16: bool
    """Whether it computes in bfloat16 as fast as in other halves."""
    process_overhead: int
    """Bytes that a process holds before there is a model: CUDA's context and libraries, or Python's."""
    host: int | None = None
    """Bytes of the machine's own memory, where that is known."""


CONTEXT = GIB * 3 // 4
"""Of CUDA's context, cuBLAS and the allocator's rounding; about what an H100 shows."""
INTERPRETER = GIB * 3 // 4
"""Of Python with torch, transformers and Lightning loaded."""
DEVICES = {
    "a100-40": Device("a100-40", 40 * GIB * 985 // 1000, True, True, CONTEXT),
    "a100-80": Device("a100-80", 80 * GIB * 985 // 1000, True, True, CONTEXT),
    "h100": Device("h100", 80 * GIB * 985 // 1000, True, True, CONTEXT),
    "h200": Device("h200", 140 * GIB, True, True, CONTEXT),
}


def find_device(name: str) -> Device:
    """One of `DEVICES`, or what this machine has: `here`."""
    if name == "here":
        return _here()
    if name not in DEVICES:
        known = [*DEVICES, "here"]
        raise VitrineError(
            f"no device '{name}' is known; use {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return DEVICES[name]


def with_precision(config: Config, device: Device) -> Config:
    """`config` with the trainer's precision `auto` replaced by what a training on `device` would choose."""
    if config.trainer.precision != "auto":
        return config
    fast = device.bfloat16
    if not device.on_gpu:
        import torch

        from pretrain.devices import bfloat16_speed

        fast, _ = bfloat16_speed(torch.device("cpu"))
    trainer = replace(config.trainer, precision="bf16-mixed" if fast else "32-true")
    return replace(config, trainer=trainer)


def _here() -> Device:
    import torch

    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        return Device(about.name, about.total_memory, True, about.major >= 8, CONTEXT, host)
    return Device("this machine's CPU", host, False, True, INTERPRETER, host)
