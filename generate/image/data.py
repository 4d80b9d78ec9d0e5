"""Feeds the image generator: latents of next items, asked for by a sibling, with the person's state."""

from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split
from generate.conditioning import NextItemPairs, Shop
from generate.image.codec import PatchCodec
from generate.image.config import ImageConfig
from generate.image.latents import encode_pictures
from generate.image.siblings import Siblings
from pretrain.rows import order_for


@dataclass
class ImageBatch:
    latents: Tensor
    """float32 (batch, channels, grid, grid): pictures of what the people bought next."""
    item_vectors: Tensor
    """float32 (batch, width): by what each picture is asked for."""
    user_states: Tensor
    """float32 (batch, width); empty until the batch is on its device."""
    histories: list[NDArray[np.integer]]
    """Item rows each person had before, oldest first."""
    key: int
    """Seeds the noise, times and dropped conditions of this batch."""


class ImageBatches(Dataset[ImageBatch]):
    """A batch for each row number, made from (seed, row) alone: any rank can make any of them."""

    def __init__(
        self,
        pairs: NextItemPairs,
        latents: NDArray[np.float16],
        item_vectors: NDArray[np.float32],
        siblings: Siblings,
        *,
        batch_size: int,
        sibling_share: float,
        seed: int,
    ) -> None:
        self.pairs = pairs
        self.latents = latents
        self.item_vectors = item_vectors
        self.siblings = siblings
        self.batch_size = batch_size
        self.sibling_share = sibling_share
        self.seed = seed

    def __getitem__(self, row: int) -> ImageBatch:
        rng = np.random.default_rng((self.seed, row))
        drawn = rng.integers(len(self.pairs), size=self.batch_size)
        targets = self.pairs.items[drawn]
        asked = np.where(
            rng.random(self.batch_size) < self.sibling_share,
            self.siblings.pick(targets, rng),
            targets,
        )
        return ImageBatch(
            latents=torch.from_numpy(self.latents[targets].astype(np.float32)),
            item_vectors=torch.from_numpy(np.array(self.item_vectors[asked])),
            user_states=torch.empty(0),
            histories=[self.pairs[int(place)].history for place in drawn],
            key=int(rng.integers(2**62)),
        )


class ImageData(pl.LightningDataModule):
    """The shop reads each history when its batch is due."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split,
        shop: Shop,
        codec: PatchCodec,
        config: ImageConfig,
        file: Path,
    ) -> None:
        """`file` is where the catalog's pictures are kept as latents."""
        super().__init__()
        self.catalog = catalog
        self.split = split
        self.shop = shop
        self.codec = codec
        self.config = config
        self.file = file

    def prepare_data(self) -> None:
        size, progress = self.config.image_size, self.config.trainer.progress
        encode_pictures(self.catalog, self.codec, size, self.file, progress)

    def setup(self, stage: str) -> None:
        pictures = encode_pictures(self.catalog, self.codec, self.config.image_size, self.file)
        pairs = NextItemPairs(self.catalog, self.split, keep=pictures.present)
        if len(pairs) == 0:
            raise VitrineError(
                f"no training pair of the catalog {self.catalog.name!r} ends in an item with a "
                "picture; give the items' pictures, or train on a longer part of the histories."
            )
        seed = self.config.trainer.seed
        vectors = self.shop.item_vectors
        self.batches = ImageBatches(
            pairs,
            pictures.latents,
            vectors,
            Siblings(self.catalog.items["category"], vectors, seed),
            batch_size=self.config.batch_size,
            sibling_share=self.config.sibling_share,
            seed=seed,
        )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        workers = self.config.workers
        return DataLoader(
            self.batches,
            batch_sampler=order_for(self.trainer, 1),
            collate_fn=itemgetter(0),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def transfer_batch_to_device(
        self, batch: ImageBatch, device: torch.device, dataloader_idx: int
    ) -> ImageBatch:
        with torch.no_grad():
            states = self.shop.user_states(batch.histories)
        return replace(
            batch,
            latents=batch.latents.to(device),
            item_vectors=batch.item_vectors.to(device),
            user_states=states.to(device, torch.float32),
        )
