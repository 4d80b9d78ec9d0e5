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
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.devices import move
from pretrain.modalities import Content
from pretrain.packing import PackedHistories, Row, stack_rows, step_sampler


@dataclass
class PretrainBatch:
    """One rank's step."""

    items: Tensor
    """int (rows, row_length)."""
    segments: Tensor
    """int (rows, row_length)."""
    slots: Tensor
    """int (rows, row_length): the row of `content` with each slot's item."""
    links: Tensor
    """int (rows, row_length): see `StepOutputs.links`."""
    content: Content
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
        loader: ItemContentLoader,
        config: PretrainDataConfig,
        seed: int,
        edges: NDArray[np.int32] | None = None,
        held_out: NDArray[np.bool_] | None = None,
    ) -> None:
        """`edges` (e, 2): linked items to learn from, or None; `held_out` bool (num_items,)."""
        super().__init__()
        self.loader = loader
        self.config = config
        self.rows = PackedHistories(
            catalog.interactions,
            split.train_end,
            catalog.num_items,
            config.row_length,
            seed,
            config.uniform_share,
            edges,
            config.edges_share,
            held_out,
        )
        self.duplicate_ids = torch.from_numpy(loader.duplicate_groups())
        self.log_popularity = torch.from_numpy(
            log_sampling_chance(catalog, split, config.uniform_share, edges, self.rows.edges_share)
        )

    @property
    def readable(self) -> NDArray[np.int64]:
        """The items (rows) that training may read."""
        if self.rows.readable is None:
            return np.arange(self.rows.num_items)
        return self.rows.readable

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(
            self.rows,
            batch_sampler=step_sampler(self.trainer, self.config.rows),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
        )

    def collate(self, rows: list[Row]) -> PretrainBatch:
        items, segments, links = stack_rows(rows)
        # Each distinct item goes through the towers once, however many slots it fills.
        distinct, slots = np.unique(items.numpy(), return_inverse=True)
        content = self.loader.read(distinct)
        slots = torch.from_numpy(slots).view_as(items)
        return PretrainBatch(items, segments, slots, links, content)

    def brief_batch(self) -> PretrainBatch:
        """A batch of two slots: enough to find the weights a step uses (`pretrain.unused_parameters`)."""
        items, segments, links = self.rows[0]
        return self.collate([(items[:2], segments[:2], links[:2])])

    def transfer_batch_to_device(
        self, batch: PretrainBatch, device: torch.device, dataloader_idx: int
    ) -> PretrainBatch:
        return PretrainBatch(
            move(batch.items, device),
            move(batch.segments, device),
            move(batch.slots, device),
            move(batch.links, device),
            to_device(batch.content, device),
        )


def log_sampling_chance(
    catalog: Catalog,
    split: Split,
    uniform_share: float,
    edges: NDArray[np.int32] | None = None,
    edges_share: float = 0.0,
) -> NDArray[np.float32]:
    """Log of the probability that a slot holds each item: float32 (num_items,)."""
    counts = split.train_counts.astype(np.float64)
    chance = (1 - uniform_share - edges_share) * counts / max(1.0, counts.sum())
    if edges is not None and edges.size and edges_share:
        chance += edges_share * np.bincount(edges.ravel(), minlength=len(chance)) / edges.size
    floor = max(uniform_share, 1e-3) / catalog.num_items
    return np.log(chance + floor).astype(np.float32)
