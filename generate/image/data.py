"""Feeds the image generator: latents of next items, asked for by a sibling, with the person's state."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from generate.image.config import CodecConfig, ImageConfig
from generate.image.siblings import Siblings

ENCODE_AT_ONCE = 256


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


class ImageBatches(Dataset[ImageBatch]):
    """Row `step` is a whole batch, made from (seed, step) alone: a resumed run reads on in place."""

    def __init__(
        self,
        pairs: NextItemPairs,
        latents: NDArray[np.float16],
        item_vectors: NDArray[np.float32],
        siblings: Siblings,
        *,
        num_batches: int,
        batch_size: int,
        sibling_share: float,
        seed: int,
    ) -> None:
        self.pairs = pairs
        self.latents = latents
        self.item_vectors = item_vectors
        self.siblings = siblings
        self.num_batches = num_batches
        self.batch_size = batch_size
        self.sibling_share = sibling_share
        self.seed = seed

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, step: int) -> ImageBatch:
        rng = np.random.default_rng((self.seed, step))
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
            histories=[self.pairs[int(row)].history for row in drawn],
        )


class ImageData(pl.LightningDataModule):
    """Batches for `num_batches` steps; the shop reads each history when its batch is due."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split,
        shop: Shop,
        pictures: "LatentPictures",
        config: ImageConfig,
        *,
        num_batches: int,
    ) -> None:
        super().__init__()
        self.shop = shop
        self.workers = config.workers
        self.pairs = NextItemPairs(catalog, split, keep=pictures.present)
        if len(self.pairs) == 0:
            raise VitrineError(
                f"no training pair of the catalog {catalog.name!r} ends in an item with a picture; "
                "give the items' pictures, or train on a longer part of the histories."
            )
        seed = config.trainer.seed
        self.batches = ImageBatches(
            self.pairs,
            pictures.latents,
            shop.item_vectors,
            Siblings(catalog.items["category"], shop.item_vectors, seed),
            num_batches=num_batches,
            batch_size=config.batch_size,
            sibling_share=config.sibling_share,
            seed=seed,
        )

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.batches,
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
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


@dataclass
class LatentPictures:
    """Every picture of a catalog, decoded and encoded once."""

    latents: NDArray[np.float16]
    """(num_items, channels, grid, grid), memory-mapped; zeros where there is no picture."""
    present: NDArray[np.bool_]
    """(num_items,)."""


def fit_codec(catalog: Catalog, config: CodecConfig, image_size: int, seed: int) -> PatchCodec:
    """A codec of a sample of the catalog's pictures."""
    if image_size % config.patch_size:
        below = image_size // config.patch_size * config.patch_size
        raise VitrineError(
            f"image_size {image_size} is not a multiple of the codec's patch_size "
            f"{config.patch_size}; try {max(below, config.patch_size)} or "
            f"{below + config.patch_size}."
        )
    numbers = 3 * config.patch_size**2
    if config.channels > numbers:
        raise VitrineError(
            f"codec.channels {config.channels} is more than the {numbers} numbers of a patch; "
            f"use {numbers} or fewer."
        )
    sample: list[NDArray[np.uint8]] = []
    for item in np.random.default_rng(seed).permutation(catalog.num_items):
        picture = catalog.image_of(int(item), image_size)
        if picture is not None:
            sample.append(picture)
        if len(sample) == config.fit_pictures:
            break
    if not sample:
        raise VitrineError(
            f"the catalog {catalog.name!r} has no readable picture; an image generator needs some."
        )
    return PatchCodec.fit(np.stack(sample), config.patch_size, config.channels, config.whitening)


def encode_pictures(
    catalog: Catalog,
    codec: PatchCodec,
    image_size: int,
    file: Path,
    progress: Callable[[int], None] | None = None,
) -> LatentPictures:
    """Encodes the catalog into `file`, or maps it again where this catalog and codec made it."""
    grid = image_size // int(codec.config["patch_size"])
    shape = (catalog.num_items, int(codec.config["channels"]), grid, grid)
    key = json.dumps([catalog.fingerprint, *shape, float(codec.basis.abs().sum() + codec.scale.sum())])
    note = file.with_suffix(".json")
    masks = file.with_suffix(".present.npy")
    if not (note.exists() and note.read_text() == key):
        file.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        latents = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)
        present = np.zeros(catalog.num_items, dtype=bool)
        for start in range(0, catalog.num_items, ENCODE_AT_ONCE):
            items = range(start, min(start + ENCODE_AT_ONCE, catalog.num_items))
            found = [(item, catalog.image_of(item, image_size)) for item in items]
            kept = {item: picture for item, picture in found if picture is not None}
            if kept:
                rows = list(kept)
                pixels = torch.from_numpy(np.stack(list(kept.values())))
                latents[rows] = codec.encode(pixels).numpy().astype(np.float16)
                present[rows] = True
            if progress is not None:
                progress(len(items))
        latents.flush()
        np.save(masks, present, allow_pickle=False)
        note.write_text(key)
    latents = np.memmap(file, dtype=np.float16, mode="r", shape=shape)
    return LatentPictures(latents, np.load(masks, allow_pickle=False))
