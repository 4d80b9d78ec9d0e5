"""Whole weights out of shards, for writing an artifact; a no-op where nothing is sharded."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def gathered_weights(*modules: nn.Module) -> Iterator[None]:
    """Under ZeRO-3 every rank holds a piece of each weight; inside, rank 0 can read them whole.

    All ranks must enter.
    """
    sharded = [p for module in modules for p in module.parameters() if hasattr(p, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=None):
        yield
