"""Refreshes the cache of item embeddings while the towers learn."""

from typing import Any

import pytorch_lightning as pl

from finetune.module import FinetuneModule
from pretrain.content_loader import ItemContentLoader
from pretrain.embed_items import embed_on_ranks
from pretrain.encoder import ItemEncoder


class CacheRefresh(pl.Callback):
    """Encodes every item again when it is called, and every `every` steps (0: never by itself).

    In between, steps encode some items (see `finetune.module`), and the other embeddings get stale.
    """

    def __init__(self, encoder: ItemEncoder, loader: ItemContentLoader, every: int = 0) -> None:
        self.encoder = encoder
        self.loader = loader
        self.every = every
        self.refreshed_at = -1

    def __call__(self, module: FinetuneModule, step: int = -1) -> None:
        """Encodes all items into the cache, and fits the whitening to the new embeddings, after `step`.

        With the whitening of the earlier embeddings, the shift that all items share would dominate what
        distinguishes them. All ranks call it, and each encodes a share of the items.
        """
        assert module.content is not None
        embed_on_ranks(self.encoder, self.loader, module.content)
        module.recommender.adaptor.whiten(module.content)
        self.refreshed_at = step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        if self.every and step % self.every == 0 and step != self.refreshed_at:
            assert isinstance(pl_module, FinetuneModule)
            self(pl_module, step)
