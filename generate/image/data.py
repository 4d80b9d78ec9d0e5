"""Feeds the image generator: latents of what people took, asked for by a sibling, with the state that the
purchase leads to by itself.

A history says a little of how the next purchase looks, the purchase itself says all of it, and both in
the same directions. So a generator learns from the clear case what a state says of looks, and hears it
in histories. In a share of the rows the person is known by all else they took in the training part,
before and after (the latest, as many as the reader reads). What a split holds out is in none of them.
"""

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
from generate.conditioning import Ranker, encode_histories
from generate.image.codec import Codec
from generate.image.config import ImageConfig
from generate.image.latent_cache import LatentCache, encode_images
from generate.image.siblings import Siblings
from generate.image.structure import seen
from generate.next_items import NextItemPairs
from generate.purchase_states import PurchaseStates
from pretrain.packing import step_sampler


@dataclass
class ImageBatch:
    latents: Tensor
    """float32 (batch, channels, rows, columns): pictures of what the people took."""
    structures: Tensor
    """float32 (batch, CHANNELS, rows, columns) from -1 to 1: the outlines in these pictures."""
    item_vectors: Tensor
    """float32 (batch, width): by what each picture is asked for."""
    user_states: Tensor
    """float32 (batch, width); empty until the batch is on its device."""
    histories: list[NDArray[np.integer]]
    """Item rows each person is known by, oldest first."""
    alone: Tensor
    """bool (batch,): whether that is the purchase itself."""
    keys: list[int]
    """Seed each picture's noise, time and dropped conditions."""


@dataclass(frozen=True)
class ImageRow:
    """One picture to learn from."""

    place: int
    """Of the person and what they took, among the pairs."""
    asked: int
    """The item it is asked for by."""
    alone: bool
    """Whether the person is known by nothing but this purchase, or by all else."""
    key: int


class ImageRows(Dataset[ImageRow]):
    """Rows without end; row r is made from (seed, r) alone, so any rank can make any of them."""

    def __init__(
        self,
        pairs: NextItemPairs,
        frames: NDArray[np.integer],
        siblings: Siblings,
        sibling_prob: float,
        self_condition_prob: float,
        seed: int,
    ) -> None:
        """`frames` (num_pairs,): of which shape each pair's picture is."""
        self.pairs = pairs
        self.by_frame = np.argsort(frames, kind="stable")
        self.ends = np.cumsum(np.bincount(frames))
        self.siblings = siblings
        self.sibling_prob = sibling_prob
        self.self_condition_prob = self_condition_prob
        self.seed = seed
        self.together = 1
        """So many rows in a step of all ranks, whose pictures are of one shape."""

    def __getitem__(self, row: int) -> ImageRow:
        step = np.random.default_rng((self.seed, row // self.together, 1))
        frame = int(np.searchsorted(self.ends, step.integers(self.ends[-1]), side="right"))
        start = self.ends[frame - 1] if frame else 0
        rng = np.random.default_rng((self.seed, row))
        place = int(self.by_frame[rng.integers(start, self.ends[frame])])
        asked = self.pairs.items[place : place + 1]
        if rng.random() < self.sibling_prob:
            asked = self.siblings.pick(asked, rng)
        alone = bool(rng.random() < self.self_condition_prob)
        return ImageRow(place, int(asked[0]), alone, int(rng.integers(2**62)))


class ImageData(pl.LightningDataModule):
    """The shop reads each history when its batch is due."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split,
        ranker: Ranker,
        codec: Codec,
        config: ImageConfig,
        folder: Path,
        purchases: PurchaseStates,
    ) -> None:
        """`folder` is where the catalog's pictures are kept as latents; `purchases` say how states of
        single purchases lie to those of histories."""
        super().__init__()
        self.catalog = catalog
        self.split = split
        self.ranker = ranker
        self.codec = codec
        self.config = config
        self.folder = folder
        self.purchases = purchases

    def prepare_data(self) -> None:
        self._encoded(self.config.trainer.progress)

    def _encoded(self, progress: bool = False) -> LatentCache:
        return encode_images(self.catalog, self.codec, self.folder, progress)

    def setup(self, stage: str) -> None:
        self.pictures = self._encoded()
        bucket_of = self.pictures.bucket_of
        self.pairs = NextItemPairs(self.catalog, self.split, item_mask=bucket_of >= 0)
        if len(self.pairs) == 0:
            raise VitrineError(
                f"no training pair of the catalog {self.catalog.name!r} ends in an item with a "
                "picture; give the items' pictures, or train on a longer part of the histories."
            )
        config, seed = self.config, self.config.trainer.seed
        siblings = Siblings(self.catalog.items["category"], self.ranker.item_vectors, seed)
        frames = bucket_of[self.pairs.items]
        self.rows = ImageRows(
            self.pairs, frames, siblings, config.sibling_prob, config.self_condition_prob, seed
        )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        workers = self.config.workers
        self.rows.together = self.config.batch_size * self.trainer.world_size
        return DataLoader(
            self.rows,
            batch_sampler=step_sampler(self.trainer, self.config.batch_size),
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def collate(self, rows: list[ImageRow]) -> ImageBatch:
        places = [row.place for row in rows]
        items = self.pairs.items[places]
        frame, rows_of = int(self.pictures.bucket_of[items[0]]), self.pictures.row_of[items]
        return ImageBatch(
            latents=torch.from_numpy(self.pictures.latents[frame][rows_of].astype(np.float32)),
            structures=seen(self.pictures.structures[frame][rows_of]),
            item_vectors=torch.from_numpy(self.ranker.item_vectors[[row.asked for row in rows]]),
            user_states=torch.empty(0),
            histories=[
                self.pairs.items[row.place : row.place + 1]
                if row.alone
                else self.pairs.other_purchases(row.place)
                for row in rows
            ],
            alone=torch.tensor([row.alone for row in rows]),
            keys=[row.key for row in rows],
        )

    def transfer_batch_to_device(
        self, batch: ImageBatch, device: torch.device, dataloader_idx: int
    ) -> ImageBatch:
        states = encode_histories(self.ranker, batch.histories)
        moved = self.purchases.match_moments(states)
        states = torch.where(batch.alone[:, None], moved, states)
        return replace(
            batch,
            latents=batch.latents.to(device),
            structures=batch.structures.to(device),
            item_vectors=batch.item_vectors.to(device),
            user_states=states.to(device),
        )
