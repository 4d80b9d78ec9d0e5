"""Looks in while a generator learns: the same few requests drawn every so many steps, side by side."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from generate.image.codec import Codec
from generate.image.config import DrawConfig
from generate.image.pipeline import PersonalImagePipeline, drawing

SHOWN = 4
"""People, and as many items."""
NAME = "samples"


class SampleGrid(pl.Callback):
    """Logs a grid of pictures, a row for each item, a column for each person and one for nobody, to every
    logger that takes pictures (TensorBoard, W&B)."""

    def __init__(
        self,
        states: Tensor,
        vectors: Tensor,
        codec: Codec,
        config: DrawConfig,
        every: int,
    ) -> None:
        """`states` (people, width), `vectors` (items, width)."""
        people = torch.cat([states[:SHOWN], states[:1] * 0])
        items = vectors[:SHOWN]
        self.columns = len(people)
        self.states = people.repeat(len(items), 1)
        self.vectors = items.repeat_interleave(len(people), dim=0)
        self.codec = codec
        self.config = config
        self.every = every
        self.last = 0

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        if not self.every or step == self.last or step % self.every or not trainer.is_global_zero:
            return
        self.last = step
        conditioner, denoiser = pl_module.networks()
        pipeline = PersonalImagePipeline(conditioner, denoiser, self.codec.to(pl_module.device))
        seeds = [
            row for row in range(len(self.states) // self.columns) for _ in range(self.columns)
        ]
        pictures = pipeline(self.states, self.vectors, seeds, **drawing(self.config))
        pl_module.train()
        log_grid(trainer, tile([np.asarray(one) for one in pictures], self.columns), step)


def tile(pictures: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures (height, width, 3) in rows of so many, as one."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def log_grid(trainer: pl.Trainer, grid: NDArray[np.uint8], step: int) -> None:
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):  # TensorBoard
            experiment.add_image(NAME, grid, step, dataformats="HWC")
        elif hasattr(logger, "log_image"):  # W&B
            logger.log_image(NAME, [grid], step)  # pyright: ignore[reportAttributeAccessIssue]
