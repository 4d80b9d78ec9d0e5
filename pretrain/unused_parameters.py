"""Unused parameters: freezes the weights that no active loss depends on.

Examples are an objective of weight 0, a tower's pooler, the layers above the one that is read. DDP fails if a
trainable weight gets no gradient; under ZeRO weight decay shrinks such weights. They are not listed anywhere:
they are found in the autograd graph of one loss.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from pretrain.eval_mode import eval_mode


def parameters_of(loss: Tensor) -> set[Tensor]:
    """The parameters that `loss` depends on, by its autograd graph."""
    reached: set[Tensor] = set()
    visited, waiting = set(), [loss.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):  # where the gradient of a parameter is summed up
            reached.add(node.variable)
        waiting.extend(before for before, _ in node.next_functions)
    return reached


def freeze_unused(module: pl.LightningModule, batch: Any) -> list[str]:
    """Freezes the parameters that the loss of `batch` does not depend on, and returns their names.

    Called before a strategy wraps the module. The parameters that a step reads must not depend on the batch
    (under ZeRO-3 every rank runs every forward pass), so a batch of two slots suffices. No gradient is
    computed, and neither batch norm's statistics nor the random state change.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        return []
    silent: Any = lambda *_, **__: None  # noqa: E731
    vars(module).update(log=silent, log_dict=silent)  # there is no trainer yet
    try:
        with eval_mode(module), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            loss: Any = module.training_step(batch, 0)
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
    used = parameters_of(loss)
    unused = [name for name, parameter in trained.items() if parameter not in used]
    for name in unused:
        trained[name].requires_grad_(False)
    return unused
