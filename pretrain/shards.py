"""Weights as a trainer holds them: sharded under ZeRO-3, or in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in module.parameters())


@contextmanager
def gathered_weights(*modules: nn.Module) -> Iterator[None]:
    """Inside, rank 0 can read the weights whole; all ranks must enter. A no-op without ZeRO-3."""
    sharded = [p for module in modules for p in module.parameters() if hasattr(p, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=None):
        yield


def float32_state(module: nn.Module) -> dict[str, Tensor]:
    """The weights as an artifact stores them, also where a step was taken in half precision."""
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }


@contextmanager
def precision_context(trainer: pl.Trainer) -> Iterator[None]:
    """Passes in the trainer's precision; what is made beside them is float32, as everywhere else.

    Lightning's own context makes half precision the default of every new tensor.
    """
    usual = torch.get_default_dtype()
    with trainer.precision_plugin.forward_context():
        torch.set_default_dtype(usual)
        yield


def cast_like(x: Tensor, weight: Tensor) -> Tensor:
    """`x`, such as vectors that are cached in float32, in the weights' precision where that is another.

    Under autocast weights are float32, and `x` stays what it is.
    """
    return x if weight.dtype == torch.float32 else x.to(weight.dtype)
