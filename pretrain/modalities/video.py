"""Video: a column of paths, read as evenly spaced frames.

A video tower (VideoMAE, TimeSformer, ViViT) reads the clip; an image tower reads each frame, and the video's
embedding is the mean of theirs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.video_audio import read_video_frames
from pretrain.augmentation import augment
from pretrain.config import ModalityConfig
from pretrain.modalities.base import Modality, Processor, TowerModality
from pretrain.modalities.image import (
    ImageSource,
    image_inputs,
    image_tokens,
    image_tower_spec,
    preprocessing_key,
    resize_of,
    shape_of,
)
from pretrain.modalities.media import MediaCache

CLIP_LENGTHS = ("num_frames", "frames_per_clip")
"""Settings of video towers that hold the number of frames of a clip."""
DEFAULT_FRAMES = 4
"""Frames of a video for an image tower."""


class Video(TowerModality):
    kind = "video"
    reads = "pixel_values"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Video", None]:
        catalog.check_column(settings.source)
        spec = image_tower_spec(settings)
        length = clip_length(spec["tower"])
        if length is not None:
            spec["input"] = (
                "pixel_values_videos" if "frames_per_clip" in spec["tower"] else "pixel_values"
            )
        if length and settings.frames not in (0, length):
            raise VitrineError(
                f"frames is {settings.frames}, but the tower ({spec['tower']['model_type']}) reads clips of "
                f"{length} frames; use {length}"
            )
        kind = cls(spec | {"frames": settings.frames or length or DEFAULT_FRAMES})
        return kind.with_width(
            **kind.inputs(torch.zeros(1, kind.spec["frames"], 3, *shape_of(spec)))
        ), None

    @classmethod
    @override
    def sharing(cls, settings: ModalityConfig, owner: Modality) -> Modality:
        shared = super().sharing(settings, owner)
        length = clip_length(shared.spec["tower"])
        return cls(shared.spec | {"frames": settings.frames or length or DEFAULT_FRAMES})

    @property
    @override
    def tokens(self) -> int:
        return self.spec["frames"] * image_tokens(self.spec)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"]  # (k, frames, 3, height, width)
        if tower.training and "augmentation" in self.spec:
            pixels = augment(self.spec, pixels)
        pooled = self.pooled(tower, **self.inputs(pixels))
        if clip_length(self.spec["tower"]) is not None:
            return pooled
        return pooled.view(*pixels.shape[:2], -1).mean(dim=1)

    def inputs(self, pixels: Tensor) -> dict[str, Any]:
        """The tower's inputs for normalised `pixels` (k, frames, 3, height, width)."""
        if clip_length(self.spec["tower"]) is not None:
            return {self.spec["input"]: pixels}
        return image_inputs(self.spec, pixels.flatten(0, 1))

    def open(self, catalog: Catalog, processor: Processor | None) -> ImageSource:
        frames, column = self.spec["frames"], self.spec["source"]
        resize = resize_of(self.spec)
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{preprocessing_key(self.spec)}x{frames}",
            (frames, *shape_of(self.spec), 3),
            np.uint8,
            lambda path: read_video_frames(path, frames, resize),
            "Decoding video",
        )
        return ImageSource(cache, self.spec)


def clip_length(tower: dict[str, Any]) -> int | None:
    """Number of frames of a video tower's clips; None for an image tower."""
    return next((int(tower[name]) for name in CLIP_LENGTHS if tower.get(name)), None)
