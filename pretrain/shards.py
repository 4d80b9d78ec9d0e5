"""What the code must know of ZeRO-3, where each rank holds a piece of each weight."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
