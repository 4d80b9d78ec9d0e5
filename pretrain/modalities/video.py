"""Video: a column of paths; frames, evenly spaced, through the image tower, and their mean."""

import numpy as np
from torch import Tensor, nn
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.video_audio import read_video_frames
from pretrain.config import ModalityConfig
from pretrain.modalities.base import Modality, Processor, TowerModality
from pretrain.modalities.image import PictureSource, describe_image_tower, picture_tokens
from pretrain.modalities.media import MediaCache


class Video(TowerModality):
    kind = "video"
    reads = "pixel_values"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Video", None]:
        catalog.check_column(settings.source)
        return cls(describe_image_tower(settings) | {"frames": settings.frames}), None

    @classmethod
    @override
    def sharing(cls, settings: ModalityConfig, owner: Modality) -> Modality:
        shared = super().sharing(settings, owner)
        return cls(shared.about | {"frames": settings.frames})

    @property
    @override
    def tokens(self) -> int:
        return self.about["frames"] * picture_tokens(self.about)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"]  # (k, frames, 3, size, size)
        pooled = self.pooled(tower, pixel_values=pixels.flatten(0, 1))
        return pooled.view(*pixels.shape[:2], -1).mean(dim=1)

    def open(self, catalog: Catalog, processor: Processor | None) -> PictureSource:
        size, frames = self.about["image_size"], self.about["frames"]
        column = self.about["source"]
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{size}x{frames}",
            (frames, size, size, 3),
            np.uint8,
            lambda path: read_video_frames(path, frames, size),
            "Decoding video",
        )
        return PictureSource(cache, self.about["mean"], self.about["std"])
