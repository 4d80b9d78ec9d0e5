"""Feeds pretraining: packed rows of histories, and the content of the items in them."""

from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from catalog.catalog import Catalog
from catalog.splits import Split
from pretrain.config import PretrainDataConfig
from pretrain.content import ContentReader
from pretrain.rows import HistoryRows, order_for, stack_rows


@dataclass
class PretrainBatch:
    """One rank's step."""

    items: Tensor
    """int (rows, row_length)."""
    segments: Tensor
    """int (rows, row_length)."""
    slots: Tensor
    """int (rows, row_length): which row of `content` each slot reads."""
    content: dict[str, Tensor]
    """The encoder's inputs for the distinct items."""

    @property
    def num_samples(self) -> int:
        return self.items.numel()


class PretrainData(pl.LightningDataModule):
    """Only the training part of each history is ever read."""

    def __init__(
        self,
        catalog: Catalog,
        split: Split,
        reader: ContentReader,
        config: PretrainDataConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.config = config
        self.rows = HistoryRows(
            catalog.interactions,
            split.train_end,
            catalog.num_items,
            config.row_length,
            seed,
            config.uniform_share,
        )
        self.twins = torch.from_numpy(reader.twin_groups())
        self.log_popularity = torch.from_numpy(
            log_sampling_chance(catalog, split, config.uniform_share)
        )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(
            self.rows,
            batch_sampler=order_for(self.trainer, self.config.rows),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
        )

    def collate(self, rows: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> PretrainBatch:
        items, segments = stack_rows(rows)
        # Each distinct item goes through the towers once, however many slots it fills.
        distinct, slots = np.unique(items.numpy(), return_inverse=True)
        content = self.reader.read(distinct)
        return PretrainBatch(items, segments, torch.from_numpy(slots).view_as(items), content)

    def transfer_batch_to_device(
        self, batch: PretrainBatch, device: torch.device, dataloader_idx: int
    ) -> PretrainBatch:
        return PretrainBatch(
            batch.items.to(device),
            batch.segments.to(device),
            batch.slots.to(device),
            {name: value.to(device) for name, value in batch.content.items()},
        )


def log_sampling_chance(
    catalog: Catalog, split: Split, uniform_share: float
) -> NDArray[np.float32]:
    """log of the chance that a slot holds each item, float32 (num_items,)."""
    counts = split.train_counts.astype(np.float64)
    bought = counts / max(1.0, counts.sum())
    floor = max(uniform_share, 1e-3) / catalog.num_items
    return np.log((1 - uniform_share) * bought + floor).astype(np.float32)
