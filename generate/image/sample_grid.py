"""Looks in while a generator learns: the same few requests drawn every so many steps, side by side.

Nothing in it is for a user of the shop: who it is drawn for is whoever took one single item.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from generate.image.codec import Codec
from generate.image.config import SamplingConfig
from generate.image.pipeline import PersonalImagePipeline, pipeline_arguments
from generate.image.watermark import embed_watermark
from generate.provenance import IPTC_SOURCE, signed_png

SHOWN = 4
"""States, and as many items."""
NAME = "samples"


class SampleGrid(pl.Callback):
    """Logs a grid of pictures, a row for each item, a column for each state and one for none, to every
    logger that takes pictures (TensorBoard, W&B): a PNG with watermark and signature."""

    def __init__(
        self,
        states: Tensor,
        vectors: Tensor,
        codec: Codec,
        config: SamplingConfig,
        every: int,
    ) -> None:
        """`states` (states, width), `vectors` (items, width)."""
        columns = torch.cat([states[:SHOWN], states[:1] * 0])
        items = vectors[:SHOWN]
        self.columns = len(columns)
        self.states = columns.repeat(len(items), 1)
        self.vectors = items.repeat_interleave(len(columns), dim=0)
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
        pictures = pipeline(self.states, self.vectors, seeds, **pipeline_arguments(self.config))
        pl_module.train()
        log_grid(trainer, tile(pictures, self.columns), step)


def tile(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows of so many, as one."""
    cells = [np.asarray(picture) for picture in pictures]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))


def log_grid(trainer: pl.Trainer, grid: Image.Image, step: int) -> None:
    about = {
        "Software": "vitrine",
        "DigitalSourceType": f"{IPTC_SOURCE}trainedAlgorithmicMedia",
        "Mode": "samples while training",
        "Step": step,
    }
    marked = Image.fromarray(embed_watermark(np.asarray(grid)))
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):  # TensorBoard
            _to_tensorboard(experiment, marked, about, step)
        elif hasattr(logger, "log_image"):  # W&B copies the file as it is
            with TemporaryDirectory() as folder:
                file = Path(folder) / f"{NAME}.png"
                file.write_bytes(signed_png(marked, about))
                logger.log_image(NAME, [str(file)], step)  # pyright: ignore[reportAttributeAccessIssue]


def _to_tensorboard(
    experiment: Any, grid: Image.Image, about: Mapping[str, Any], step: int
) -> None:
    """`add_image` would encode the pixels anew, without the signature."""
    package = (
        "tensorboardX" if "tensorboardX" in type(experiment).__module__ else "tensorboard.compat"
    )
    summary = import_module(f"{package}.proto.summary_pb2").Summary
    image = summary.Image(
        height=grid.height,
        width=grid.width,
        colorspace=3,
        encoded_image_string=signed_png(grid, about),
    )
    found = summary(value=[summary.Value(tag=NAME, image=image)])
    experiment._get_file_writer().add_summary(found, step)
