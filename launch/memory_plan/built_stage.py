"""A stage as the memory plan takes it apart: its module, and batches of the right shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from pretrain.encoder import ItemEncoder


def _history_slots(batch: Any) -> int:
    return batch.items.numel()


@dataclass
class BuiltStage:
    """A stage's module, and its batches by step."""

    module: pl.LightningModule
    encoder: ItemEncoder | None
    """The encoder whose towers are trained; None where no step reads content."""
    batch: Callable[[int], Any]
    """Step → the batch of the first rank, with new random content."""
    read: Callable[[int], NDArray[np.int64]]
    """Step → the items that go through the towers."""
    cost: Callable[[NDArray[np.int64]], int]
    """Items → number of their tokens and patches."""
    keeps_best: bool
    """Whether a copy of the best weights is kept beside those in training."""
    slots: Callable[[Any], int] = _history_slots
    """Batch → number of its slots of histories."""
