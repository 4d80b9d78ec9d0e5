"""Access to the weights of a running trainer, which may be sharded (ZeRO-3) or in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in module.parameters())


@contextmanager
def gathered_weights(*modules: nn.Module) -> Iterator[None]:
    """Gathers sharded weights on rank 0 inside the block, which all ranks enter; a no-op without ZeRO-3."""
    sharded = [p for module in modules for p in module.parameters() if hasattr(p, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=None):
        yield


def float32_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict in float32, as artifacts store it, also if training was in half precision."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }


@contextmanager
def precision_context(trainer: pl.Trainer) -> Iterator[None]:
    """Runs forward passes in the trainer's precision, with float32 as the default of new tensors.

    Lightning's own context also makes half precision the default of new tensors.
    """
    usual = torch.get_default_dtype()
    with trainer.precision_plugin.forward_context():
        torch.set_default_dtype(usual)
        yield


def cast_like(x: Tensor, weight: Tensor) -> Tensor:
    """`x`, such as vectors cached in float32, cast to the precision of `weight`.

    Under autocast weights are float32, and `x` is not changed.
    """
    return x if weight.dtype == torch.float32 else x.to(weight.dtype)
