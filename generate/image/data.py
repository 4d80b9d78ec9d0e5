"""Training data of the image generator: latents of purchased items, conditioned on a sibling and a state.

The state of a history predicts little of how the next purchase looks; the state of the purchase itself
predicts all of it, along the same directions. So most rows are conditioned on the state of the purchase
itself (self-conditioning), from which the generator learns how a state determines looks; sampling uses
states of histories. The other rows are conditioned on the state of all other purchases of the user in the
training part, before and after (the latest, up to the length of the sequence encoder). No row contains
anything that a split holds out.
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
from generate.image.structure import normalize
from generate.next_items import NextItemPairs
from generate.purchase_states import PurchaseStates
from pretrain.devices import move
from pretrain.packing import step_sampler


@dataclass
class ImageBatch:
    latents: Tensor
    """float32 (batch, channels, rows, columns): images of the purchased items."""
    structures: Tensor
    """float32 (batch, CHANNELS, rows, columns) from -1 to 1: structures of these images."""
    item_vectors: Tensor
    """float32 (batch, width): embeddings of the condition items."""
    user_states: Tensor
    """float32 (batch, width); empty until the batch is on its device."""
    histories: list[NDArray[np.integer]]
    """Item rows from which each user state is computed, oldest first."""
    self_conditioned: Tensor
    """bool (batch,): whether the history is the purchased item alone."""
    keys: list[int]
    """Random seed of each row, for its noise, time and dropped conditions."""


@dataclass(frozen=True)
class ImageRow:
    """One training image and its conditions."""

    pair: int
    """Index of the user and the purchased item, among the pairs."""
    condition_item: int
    """Row of the item whose embedding is the condition."""
    self_conditioned: bool
    """Whether the user state is that of the purchase alone, else that of the user's other purchases."""
    key: int


class ImageRows(Dataset[ImageRow]):
    """An endless dataset; row r depends on (seed, r) alone, so that any rank can read any row."""

    def __init__(
        self,
        pairs: NextItemPairs,
        buckets: NDArray[np.integer],
        siblings: Siblings,
        config: ImageConfig,
    ) -> None:
        """`buckets` (num_pairs,): resolution bucket of each pair's image."""
        self.pairs = pairs
        self.by_bucket = np.argsort(buckets, kind="stable")
        self.ends = np.cumsum(np.bincount(buckets))
        self.siblings = siblings
        self.sibling_prob = config.sibling_prob
        self.self_condition_prob = config.self_condition_prob
        self.seed = config.trainer.seed
        self.global_batch_size = 1
        """Rows in a step of all ranks, whose images are all of one resolution bucket."""

    def __getitem__(self, row: int) -> ImageRow:
        step = np.random.default_rng((self.seed, row // self.global_batch_size, 1))
        bucket = int(np.searchsorted(self.ends, step.integers(self.ends[-1]), side="right"))
        start = self.ends[bucket - 1] if bucket else 0
        rng = np.random.default_rng((self.seed, row))
        pair = int(self.by_bucket[rng.integers(start, self.ends[bucket])])
        item = self.pairs.items[pair : pair + 1]
        if rng.random() < self.sibling_prob:
            item = self.siblings.sample(item, rng)
        self_conditioned = bool(rng.random() < self.self_condition_prob)
        return ImageRow(pair, int(item[0]), self_conditioned, int(rng.integers(2**62)))


class ImageData(pl.LightningDataModule):
    """Data module; the recommender encodes each history when its batch is transferred to the device."""

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
        """`folder` holds the latent cache; `purchases` map states of single purchases to where states of
        histories lie."""
        super().__init__()
        self.catalog = catalog
        self.split = split
        self.ranker = ranker
        self.codec = codec
        self.config = config
        self.folder = folder
        self.purchases = purchases

    def prepare_data(self) -> None:
        self._encode_images(self.config.trainer.progress)

    def _encode_images(self, progress: bool = False) -> LatentCache:
        return encode_images(self.catalog, self.codec, self.folder, progress)

    def setup(self, stage: str) -> None:
        self.images = self._encode_images()
        bucket_of = self.images.bucket_of
        self.pairs = NextItemPairs(self.catalog, self.split, item_mask=bucket_of >= 0)
        if len(self.pairs) == 0:
            raise VitrineError(
                f"no training pair of the catalog {self.catalog.name!r} ends in an item with an "
                "image; give the items' images, or train on a longer part of the histories."
            )
        seed = self.config.trainer.seed
        siblings = Siblings(self.catalog.items["category"], self.ranker.item_vectors, seed)
        buckets = bucket_of[self.pairs.items]
        self.rows = ImageRows(self.pairs, buckets, siblings, self.config)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        workers = self.config.workers
        self.rows.global_batch_size = self.config.batch_size * self.trainer.world_size
        return DataLoader(
            self.rows,
            batch_sampler=step_sampler(self.trainer, self.config.batch_size),
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def collate(self, rows: list[ImageRow]) -> ImageBatch:
        items = self.pairs.items[[row.pair for row in rows]]
        condition_items = [row.condition_item for row in rows]
        bucket, image_rows = int(self.images.bucket_of[items[0]]), self.images.row_of[items]
        return ImageBatch(
            latents=torch.from_numpy(self.images.latents[bucket][image_rows].astype(np.float32)),
            structures=normalize(self.images.structures[bucket][image_rows]),
            item_vectors=torch.from_numpy(self.ranker.item_vectors[condition_items]),
            user_states=torch.empty(0),
            histories=[
                self.pairs.items[row.pair : row.pair + 1]
                if row.self_conditioned
                else self.pairs.other_purchases(row.pair)
                for row in rows
            ],
            self_conditioned=torch.tensor([row.self_conditioned for row in rows]),
            keys=[row.key for row in rows],
        )

    def transfer_batch_to_device(
        self, batch: ImageBatch, device: torch.device, dataloader_idx: int
    ) -> ImageBatch:
        states = encode_histories(self.ranker, batch.histories)
        moved = self.purchases.match_moments(states)
        states = torch.where(batch.self_conditioned[:, None], moved, states)
        return replace(
            batch,
            latents=move(batch.latents, device),
            structures=move(batch.structures, device),
            item_vectors=move(batch.item_vectors, device),
            user_states=move(states, device),
        )
