"""Batches of fine-tuning: packed rows of histories, and content of the items encoded with gradient."""

from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from catalog.catalog import Catalog
from catalog.splits import Split
from finetune.config import FinetuneDataConfig
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.devices import move
from pretrain.modalities import Content
from pretrain.packing import PackedHistories, Row, stack_rows, step_sampler


@dataclass
class FinetuneBatch:
    """One rank's step."""

    items: Tensor
    """int (rows, row_length)."""
    segments: Tensor
    """int (rows, row_length)."""
    fresh: Tensor | None
    """int (encode_items,): items to encode with gradient in this step."""
    content: Content
    """Their content; empty if the towers are frozen."""

    @property
    def followed(self) -> Tensor:
        """bool (rows, row_length - 1): the next slot belongs to the same history."""
        return self.segments[:, :-1] == self.segments[:, 1:]

    @property
    def num_samples(self) -> int:
        return self.items.numel()


class FinetuneData(pl.LightningDataModule):
    """Training histories; `loader` None if the towers are frozen, so that the cache never changes."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split,
        loader: ItemContentLoader | None,
        config: FinetuneDataConfig,
        *,
        row_length: int,
        seed: int,
        held_out: NDArray[np.bool_] | None = None,
    ) -> None:
        """`held_out` bool (num_items,): items left out of all rows."""
        super().__init__()
        self.loader = loader
        self.config = config
        self.num_items = catalog.num_items
        self.rows = PackedHistories(
            catalog.interactions,
            split.train_end,
            catalog.num_items,
            row_length,
            seed,
            held_out=held_out,
        )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(
            self.rows,
            batch_sampler=step_sampler(self.trainer, self.config.rows),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
        )

    def collate(self, rows: list[Row]) -> FinetuneBatch:
        items, segments, _ = stack_rows(rows)
        if self.loader is None:
            return FinetuneBatch(items, segments, None, {})
        fresh = self._choose_fresh(items.numpy())
        return FinetuneBatch(items, segments, torch.from_numpy(fresh), self.loader.read(fresh))

    def brief_batch(self) -> FinetuneBatch:
        """Two slots and two items: enough to find the weights a step uses (`pretrain.unused_parameters`)."""
        items, segments, links = self.rows[0]
        items, segments, _ = stack_rows([(items[:2], segments[:2], links[:2])])
        if self.loader is None:
            return FinetuneBatch(items, segments, None, {})
        fresh = np.arange(min(2, self.num_items))
        return FinetuneBatch(items, segments, torch.from_numpy(fresh), self.loader.read(fresh))

    def _choose_fresh(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """`encode_items` distinct items of the whole catalog, seeded by the batch `items`.

        Sampled independently of the batch's items: if those were the fresh ones, the towers could mark
        freshness itself, and every fresh target would win against stale negatives.
        """
        rng = np.random.default_rng([int(items.sum()), int(items[0, 0])])
        number = min(self.config.encode_items, self.num_items)
        if 4 * number > self.num_items:
            return np.sort(rng.permutation(self.num_items)[:number])
        drawn = np.unique(rng.integers(self.num_items, size=2 * number))
        return np.sort(rng.permutation(drawn)[:number])

    def transfer_batch_to_device(
        self, batch: FinetuneBatch, device: torch.device, dataloader_idx: int
    ) -> FinetuneBatch:
        return FinetuneBatch(
            move(batch.items, device),
            move(batch.segments, device),
            None if batch.fresh is None else move(batch.fresh, device),
            to_device(batch.content, device),
        )
