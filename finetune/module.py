"""One step of fine-tuning: refresh some item vectors through the towers, predict every next item."""

from typing import Any, Self

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.data import FinetuneBatch
from finetune.recommender import Recommender
from finetune.softmax import catalog_cross_entropy
from pretrain.config import OptimizerConfig
from pretrain.encoder import ItemVectors
from pretrain.gather import gather_rows
from pretrain.optim import make_optimizer

ALIGNMENT_TEMPERATURE = 0.07


class FinetuneModule(pl.LightningModule):
    """End to end at the price of a few items a step.

    `content` caches what the towers make of every item. A step reads `encode_items` items through
    the towers with gradient, puts them into the cache, and takes the softmax over the whole catalog:
    the fresh items meet every position, as positives and as negatives, and the others stand in with
    the vectors they had when they were last read.
    """

    content: Tensor | None
    never_taken: Tensor

    def __init__(
        self,
        recommender: Recommender,
        content: Tensor | None,
        trained_items: Tensor,
        optimizer: OptimizerConfig,
        alignment: float = 0.0,
        tower_rate: float = 1.0,
    ) -> None:
        """`content` float32 (num_items, width), or None where ids alone stand for items.

        `trained_items` bool (num_items,): what somebody took in training. The others are no
        candidates there: most were not for sale yet, and as negatives in every softmax they would
        learn one thing, to be ranked last.
        """
        super().__init__()
        self.recommender = recommender
        self.alignment = alignment
        self.tower_rate = tower_rate
        self.optimizer_config = optimizer
        encoder = recommender.encoder
        towers_learn = encoder is not None and any(p.requires_grad for p in encoder.parameters())
        self.register_buffer("content", content, persistent=towers_learn)
        self.register_buffer("never_taken", ~trained_items, persistent=False)

    def item_vectors(self) -> Tensor:
        """(num_items, width), unit length, from the cache."""
        return self.recommender.adapt(self.content)

    def refreshed(self, rows: Tensor, fresh: Tensor) -> Tensor:
        """As `item_vectors`, with `fresh` (n, width) for items `rows` (n,), and gradient to them."""
        assert self.content is not None
        # Every rank puts every rank's items into its cache, so that the caches stay the same.
        self.content = self.content.index_copy(0, gather_rows(rows), gather_rows(fresh.detach()))
        return self.recommender.adapt(self.content.index_copy(0, rows, fresh))

    def on_train_start(self) -> None:
        self.train()  # weights come from disk in evaluation mode, and a resumed run must not begin so

    def training_step(self, batch: FinetuneBatch, batch_idx: int) -> Tensor:
        aligned = None
        if batch.fresh is None:
            vectors = self.item_vectors()
        else:
            assert self.recommender.encoder is not None
            encoded = self.recommender.encoder(batch.content)
            vectors = self.refreshed(batch.fresh, encoded.item)
            if self.alignment and self.recommender.encoder.pairs:
                losses = [align(encoded, *two) for two in self.recommender.encoder.pairs]
                aligned = torch.stack(losses).mean()
        states = self.recommender.history(vectors[batch.items], batch.segments)
        followed = batch.segments[:, :-1] == batch.segments[:, 1:]  # the next slot goes on with it
        loss = catalog_cross_entropy(
            states[:, :-1][followed],
            vectors,
            batch.items[:, 1:][followed],
            self.recommender.temperature(),
            self.never_taken,
        )
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.items))
        return loss if aligned is None else loss + self.alignment * aligned

    def configure_optimizers(self) -> Any:
        encoder = self.recommender.encoder
        return make_optimizer(
            self.parameters(),
            self.optimizer_config,
            self.trainer.max_steps,
            {} if encoder is None else dict.fromkeys(encoder.parameters(), self.tower_rate),
        )

    def train(self, mode: bool = True) -> Self:
        """Towers stay in evaluation mode: vectors with dropout would not match those in the cache."""
        super().train(mode)
        if self.recommender.encoder is not None:
            self.recommender.encoder.eval()
        return self


def align(encoded: ItemVectors, one: int, other: int) -> Tensor:
    """Symmetric InfoNCE (CLIP) among one rank's fresh items that have both modalities."""
    both = encoded.present[:, one] & encoded.present[:, other]
    units = encoded.units[both]
    logits = units[:, one] @ units[:, other].T / ALIGNMENT_TEMPERATURE
    labels = torch.arange(len(logits), device=logits.device)
    if len(labels) == 0:
        return 0.0 * encoded.units.sum()
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
