"""Video: a column of paths; the mean of the image tower's embeddings of evenly spaced frames."""

import numpy as np
from torch import Tensor, nn
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.video_audio import read_video_frames
from pretrain.config import ModalityConfig
from pretrain.modalities.base import Modality, Processor, TowerModality
from pretrain.modalities.image import ImageSource, image_tokens, image_tower_spec
from pretrain.modalities.media import MediaCache


class Video(TowerModality):
    kind = "video"
    reads = "pixel_values"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Video", None]:
        catalog.check_column(settings.source)
        return cls(image_tower_spec(settings) | {"frames": settings.frames}), None

    @classmethod
    @override
    def sharing(cls, settings: ModalityConfig, owner: Modality) -> Modality:
        shared = super().sharing(settings, owner)
        return cls(shared.spec | {"frames": settings.frames})

    @property
    @override
    def tokens(self) -> int:
        return self.spec["frames"] * image_tokens(self.spec)

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"]  # (k, frames, 3, size, size)
        pooled = self.pooled(tower, pixel_values=pixels.flatten(0, 1))
        return pooled.view(*pixels.shape[:2], -1).mean(dim=1)

    def open(self, catalog: Catalog, processor: Processor | None) -> ImageSource:
        size, frames = self.spec["image_size"], self.spec["frames"]
        column = self.spec["source"]
        cache = MediaCache(
            catalog,
            column,
            f"{column}-{size}x{frames}",
            (frames, size, size, 3),
            np.uint8,
            lambda path: read_video_frames(path, frames, size),
            "Decoding video",
        )
        return ImageSource(cache, self.spec["mean"], self.spec["std"])
