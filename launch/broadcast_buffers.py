"""Excludes constant buffers from what DDP broadcasts in every step.

DDP sends all buffers of rank 0 to the others before each forward pass. Of ours only batch norm's
statistics change from rank to rank; the rest is as large as the catalog (fine-tuning's cached vectors:
1.5 GB for a million items of width 384) and is the same everywhere once the first step begins.
"""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from pretrain.distributed import broadcast_rows


class BroadcastBuffersOnce(pl.Callback):
    """Sends buffers from rank 0 once, before the first step, under every strategy."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # DDP asks the module it wraps for this list.
        names = [name for name, _ in constant_buffers(pl_module)]
        pl_module._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            for _, buffer in constant_buffers(pl_module):
                broadcast_rows(buffer, 0)


def constant_buffers(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers that no rank changes by itself: all but the statistics of batch norm."""
    for path, part in module.named_modules():
        if isinstance(part, _NormBase):
            continue
        yield from part.named_buffers(path, recurse=False)
