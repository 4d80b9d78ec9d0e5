"""Logs a grid of sampled images during training: the same conditions every few steps.

The user states are those of single items, so that no log shows images made for a user of the catalog.
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
from generate.image.module import ImageModule
from generate.image.pipeline import PersonalImagePipeline
from generate.image.watermark import embed_watermark
from generate.provenance import IPTC_SOURCE, signed_png

GRID_SIDE = 4
"""User states, and as many items."""
NAME = "samples"


class SampleGrid(pl.Callback):
    """Logs a grid of images, a row for each item, a column for each state and one unconditional, to every
    logger that takes images (TensorBoard, W&B): a watermarked and signed PNG."""

    def __init__(
        self,
        states: Tensor,
        vectors: Tensor,
        codec: Codec,
        config: SamplingConfig,
        every: int,
    ) -> None:
        """`states` (states, width), `vectors` (items, width)."""
        columns = torch.cat([states[:GRID_SIDE], states[:1] * 0])
        items = vectors[:GRID_SIDE]
        self.columns = len(columns)
        self.states = columns.repeat(len(items), 1)
        self.vectors = items.repeat_interleave(len(columns), dim=0)
        self.codec = codec
        self.config = config
        self.every = every
        self.last = 0

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object, **__: object
    ) -> None:
        step = trainer.global_step
        if not self.every or step == self.last or step % self.every or not trainer.is_global_zero:
            return
        self.last = step
        assert isinstance(pl_module, ImageModule)
        conditioner, denoiser = pl_module.networks()
        pipeline = PersonalImagePipeline(conditioner, denoiser, self.codec.to(pl_module.device))
        seeds = [
            row for row in range(len(self.states) // self.columns) for _ in range(self.columns)
        ]
        images = pipeline(self.states, self.vectors, seeds, self.config)
        pl_module.train()
        log_grid(trainer, tile(images, self.columns), step)


def tile(images: list[Image.Image], columns: int) -> Image.Image:
    """One image of images of the same size, in rows of `columns`."""
    cells = [np.asarray(image) for image in images]
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
    """Writes the signed PNG as it is; `add_image` would encode the pixels again, without the signature."""
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
    summary_proto = summary(value=[summary.Value(tag=NAME, image=image)])
    experiment._get_file_writer().add_summary(summary_proto, step)
