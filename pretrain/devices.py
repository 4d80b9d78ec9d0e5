"""Where a model computes, and in which numbers: the meaning of `--device` and `--precision` in every command.

Imports torch only inside functions, so that help pages and settings do without it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from catalog.errors import VitrineError
from pretrain.config import Precision, TrainerConfig

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch
    from accelerate import PartialState
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)

NAMES = "auto, cpu, cuda, cuda:N or mps"
FAST_CAPABILITY = 8.0
"""CUDA compute capability (Ampere) from which tensor cores multiply bfloat16."""
FAST_CPU = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
"""Instruction set as torch and /proc/cpuinfo spell it → its name."""

MIXED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""Precision → torch's name of what autocast rounds to."""


@dataclass(frozen=True)
class Compute:
    """A device, and the precision (Lightning's name, never `auto`) of what runs on it."""

    device: "torch.device"
    precision: Precision = "32-true"

    def place(self, module: "Module") -> "Module":
        """Moves `module` to the device, its weights in the precision (`-mixed`: in float32), and returns it.

        Weights are float32 whatever they were stored in, unless half or double precision was asked for.
        """
        import torch

        def convert(weight: "torch.Tensor") -> "torch.Tensor":
            # A buffer in double precision stays so, unless the precision or the device says otherwise.
            keep = self.weight_dtype == torch.float32 and weight.dtype.itemsize >= 4
            keep = keep and self.device.type != "mps"
            cast = weight.is_floating_point() and not keep
            return weight.to(self.device, self.weight_dtype if cast else None)

        module._apply(convert)  # diffusers and transformers override `to`
        arrange_convolutions(module, self.device)
        return module

    def place_for_inference(self, module: "Module") -> "Module":
        """`place`, and with `-mixed` rounds weights of linear layers and convolutions at once.

        Autocast rounds them in each forward pass, so results stay the same, in half the memory. A weight
        that something else reads as well (a tied one) is left alone.
        """
        import torch
        from torch import nn

        self.place(module)
        dtype = MIXED.get(self.precision)
        if dtype is None:
            return module
        rounding = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        rounded: dict[nn.Parameter, bool] = {}
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                alone = type(part) in rounding and name in ("weight", "bias")
                rounded[weight] = rounded.get(weight, True) and alone
        for weight, alone in rounded.items():
            if alone and weight.dtype == torch.float32:
                weight.data = weight.data.to(getattr(torch, dtype))
        return module

    def set_tf32(self) -> None:
        """On a GPU, float32 products use TF32 with `-mixed`, where most others have fewer bits already."""
        import torch

        if self.device.type == "cuda":
            mixed = self.precision.endswith("-mixed")
            torch.set_float32_matmul_precision("high" if mixed else "highest")
            torch.backends.cudnn.allow_tf32 = mixed

    @property
    def weight_dtype(self) -> "torch.dtype":
        import torch

        names = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
        return names.get(self.precision, torch.float32)

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of forward passes: autocast with `-mixed`, else nothing."""
        import torch

        dtype = MIXED.get(self.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, dtype))

    @property
    def metrics(self) -> dict[str, str]:
        """What a manifest's metrics say of it."""
        return {"device": self.device.type, "precision": self.precision}

    @property
    def settings(self) -> dict[str, str]:
        """What decides the result: the precision, where it is not the default."""
        return {} if self.precision == "32-true" else {"precision": self.precision}


def choose_compute(device: str = "auto", precision: Precision = "32-true") -> Compute:
    """The device and precision that `--device` and `--precision` name, for this process (TF32 included).

    VitrineError as from `resolve_device` and `resolve_precision`.
    """
    resolved = resolve_device(device)
    compute = Compute(resolved, resolve_precision(precision, resolved))
    compute.set_tf32()
    return compute


def on_cpu() -> Compute:
    """float32 on the CPU."""
    import torch

    return Compute(torch.device("cpu"))


def check_device_name(name: str) -> None:
    """VitrineError for a name that is no device on any machine."""
    kind, colon, index = name.partition(":")
    known = kind in ("cpu", "cuda", "mps", "auto") and (not colon or kind == "cuda")
    if not known or (colon and not index.isdecimal()):
        raise VitrineError(f"no device is called {name!r}; use {NAMES}.")


def resolve_device(name: str = "auto") -> "torch.device":
    """The device of this process: `auto` takes the GPU where there is one, else the CPU.

    Of several processes on a machine each takes a GPU of its own, with `auto` and `cuda`. Raises
    VitrineError for an unknown name, and for a device that is not there.
    """
    import torch

    check_device_name(name)
    kind, colon, index = name.partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if has_mps else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    present = ["cpu", *(f"cuda:{number}" for number in range(gpus)), *(["mps"] if has_mps else [])]
    if not any(one.startswith(kind) if not colon else one == name for one in present):
        raise VitrineError(
            f"device {name} is not there; this machine has {', '.join(present)}: use one of them, or auto."
        )
    if kind == "mps":
        return torch.device("mps")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if colon and processes > 1:
        raise VitrineError(
            f"device {name} is one GPU, and {processes} processes run here; use cuda, one for each."
        )
    return torch.device("cuda", int(index or int(os.environ.get("LOCAL_RANK", "0")) % gpus))


def resolve_precision(name: Precision, device: "torch.device") -> Precision:
    """`name`, or for `auto` bf16-mixed where `device` multiplies bfloat16 fast, else 32-true.

    The choice of `auto` is printed once on standard error. Raises VitrineError where the device cannot
    compute in it.
    """
    if name in ("16-mixed", "16-true") and device.type == "cpu":
        raise VitrineError(
            f"precision {name} is made for GPUs, and the device is the CPU; use bf16-mixed or 32-true."
        )
    if name == "64-true" and device.type == "mps":
        raise VitrineError("device mps has no float64; use precision 32-true, or device cpu.")
    if name != "auto":
        return name
    fast, reason = bfloat16_speed(device)
    chosen: Precision = "bf16-mixed" if fast else "32-true"
    if os.environ.get("RANK", "0") == "0":
        _print_once(f"precision {chosen}: {reason}")
    return chosen


def bfloat16_speed(device: "torch.device") -> tuple[bool, str]:
    """Whether `device` multiplies bfloat16 faster than float32, and the reason in words."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        fast = major + minor / 10 >= FAST_CAPABILITY
        about = f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
        return fast, f"{about} multiplies bf16 fast" if fast else f"{about} has no fast bf16"
    if device.type != "cpu":
        return False, f"nothing is known of bf16 on {device.type}"
    found = [label for flag, label in FAST_CPU.items() if flag in cpu_flags()]
    if found:
        return True, f"this CPU multiplies bf16 fast ({', '.join(found)})"
    return False, f"this CPU has neither {' nor '.join(FAST_CPU.values())}"


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor, as torch or else /proc/cpuinfo lists them."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return frozenset(
            name for name, is_there in torch.cpu.get_capabilities().items() if is_there
        )
    try:
        with open("/proc/cpuinfo", encoding="utf8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.partition(":")[2].split())


def training_device(config: TrainerConfig) -> "torch.device":
    """The device on which this process trains: `device`, else as Lightning's `accelerator` says.

    Raises VitrineError where the two differ, and for a device that is not there.
    """
    if config.device == "auto":
        kind = {"gpu": "auto"}.get(config.accelerator, config.accelerator)
        return resolve_device(kind)
    kind, colon, _ = config.device.partition(":")
    same = {"auto", kind} | ({"gpu"} if kind != "cpu" else set())
    if config.accelerator not in same:
        raise VitrineError(
            f"device {config.device} and trainer.accelerator {config.accelerator} differ; set one of them."
        )
    if colon and config.devices * config.nodes > 1:
        raise VitrineError(
            f"device {config.device} is one GPU, and trainer.devices × trainer.nodes is "
            f"{config.devices * config.nodes}; use device cuda."
        )
    return resolve_device(config.device)


def training_compute(config: TrainerConfig) -> Compute:
    """float32 on the device of a training, for what its stage computes before and after the steps."""
    return Compute(training_device(config))


def move(
    tensor: "torch.Tensor", device: "torch.device", dtype: "torch.dtype | None" = None
) -> "torch.Tensor":
    """`tensor` on `device`; to a GPU by way of pinned memory, so that the host does not wait for the copy."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, dtype, non_blocking=True)


def compute_of(trainer: "pl.Trainer") -> Compute:
    """The device and precision of a trainer that is set up."""
    return Compute(trainer.strategy.root_device, trainer.precision)  # pyright: ignore[reportArgumentType]


def arrange_convolutions(module: "nn.Module", device: "torch.device") -> None:
    """Stores weights of convolutions channels last on a CUDA GPU, whose kernels want them so."""
    import torch
    from torch import nn

    for layer in module.modules():
        if device.type == "cuda" and isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@contextmanager
def running_on(module: "nn.Module", device: "torch.device") -> Iterator[None]:
    """Context in which `module` is on `device`; then it is back where it was."""
    from torch import nn

    before = next(module.parameters()).device
    nn.Module.to(module, device)
    try:
        yield
    finally:
        nn.Module.to(module, before)


def init_processes(device: "torch.device") -> "PartialState":
    """accelerate's `PartialState`: rank and barriers of the processes that were started together."""
    from accelerate import PartialState

    # A long timeout: a process that finishes early waits for those with more work left.
    return PartialState(cpu=device.type != "cuda", timeout=timedelta(days=7))


_printed: set[str] = set()


def _print_once(line: str) -> None:
    if line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr, flush=True)
