"""The cache of what towers make of every item, while these learn."""

from typing import Any

import pytorch_lightning as pl

from finetune.module import FinetuneModule
from pretrain.content_loader import ItemContentLoader
from pretrain.embed_items import embed_on_ranks
from pretrain.encoder import ItemEncoder


class CacheRefresh(pl.Callback):
    """Reads every item anew when it is asked to, and every `every` steps (0: never of itself).

    In between, steps read some items anew (see `finetune.module`), and the others' vectors age.
    """

    def __init__(self, encoder: ItemEncoder, reader: ItemContentLoader, every: int = 0) -> None:
        self.encoder = encoder
        self.reader = reader
        self.every = every
        self.read_at = -1

    def __call__(self, module: FinetuneModule, step: int = -1) -> None:
        """What stands in the cache is then what the towers make of every item, after `step`.

        The whitening is fitted to them anew: under that of where the towers stood before, a shift all
        items share, small as it is in their narrow cone, is louder than what tells them apart.
        All ranks call it, and each reads a share of the items.
        """
        assert module.content is not None
        embed_on_ranks(self.encoder, self.reader, module.content)
        module.recommender.adaptor.whiten(module.content)
        self.read_at = step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        if self.every and step % self.every == 0 and step != self.read_at:
            assert isinstance(pl_module, FinetuneModule)
            self(pl_module, step)
