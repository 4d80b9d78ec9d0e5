"""Evaluation mode as a context manager."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Inside, `modules` are in evaluation mode; afterwards every submodule has its training flag back."""
    flags = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        nn.Module.eval(module)
    try:
        yield
    finally:
        for part, training in flags.items():
            part.training = training
