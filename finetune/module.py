"""One step of fine-tuning: refresh some item vectors through the towers, predict every next item."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from finetune.data import FinetuneBatch
from finetune.recommender import Recommender
from finetune.softmax import catalog_cross_entropy
from pretrain.config import OptimizerConfig
from pretrain.gather import gather_rows
from pretrain.optim import make_optimizer


class FinetuneModule(pl.LightningModule):
    """End to end at the price of a few items a step.

    `content` caches what the towers make of every item. A step reads `encode_items` of the batch's
    items through the towers with gradient, puts them into the cache, and takes the softmax over the
    whole catalog: the fresh items meet every position, as positives and as negatives, and the
    others stand in with the vectors they had when they were last read.
    """

    content: Tensor | None

    def __init__(
        self, recommender: Recommender, content: Tensor | None, optimizer: OptimizerConfig
    ) -> None:
        """`content` float32 (num_items, width), or None where ids alone stand for items."""
        super().__init__()
        self.recommender = recommender
        self.optimizer_config = optimizer
        self.register_buffer("content", content, persistent=False)

    def item_vectors(self, batch: FinetuneBatch | None = None) -> Tensor:
        """(num_items, width), unit length, with the batch's fresh items in place."""
        content = self.content
        if batch is not None and batch.fresh is not None and content is not None:
            assert self.recommender.encoder is not None
            fresh = self.recommender.encoder(**batch.content).item
            everyones = gather_rows(batch.fresh)
            self.content = content.index_copy(0, everyones, gather_rows(fresh.detach()))
            content = self.content.index_copy(0, batch.fresh, fresh)
        return self.recommender.adapt(content)

    def training_step(self, batch: FinetuneBatch, batch_idx: int) -> Tensor:
        vectors = self.item_vectors(batch)
        states = self.recommender.history(vectors[batch.items], batch.segments)
        followed = batch.segments[:, :-1] == batch.segments[:, 1:]  # the next slot goes on with it
        loss = catalog_cross_entropy(
            states[:, :-1][followed],
            vectors,
            batch.items[:, 1:][followed],
            self.recommender.temperature(),
        )
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.items))
        return loss

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)
