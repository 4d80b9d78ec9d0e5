"""One step of fine-tuning: refresh some item vectors through the towers, predict every next item."""

from typing import Any, Self

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.cold_start import impute_cold_embeddings
from finetune.config import EncoderLearning
from finetune.data import FinetuneBatch
from finetune.losses import catalog_cross_entropy, draw_negatives, sampled_cross_entropy
from finetune.recommender import Recommender
from pretrain.config import OptimizerConfig
from pretrain.distributed import gather_rows
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.optim import layer_rates, make_optimizer
from pretrain.unused import freeze_unused

ALIGNMENT_TEMPERATURE = 0.07


class FinetuneModule(pl.LightningModule):
    """End to end at the price of a few items a step.

    `content` caches what the towers make of every item. A step reads `encode_items` items through
    the towers with gradient, puts them into the cache, and takes the softmax over the whole catalog:
    the fresh items meet every position, as positives and as negatives, and the others stand in with
    the vectors they had when they were last read.
    """

    frozen_is_unchanged = True
    """Weights that are not trained are those it was built with: checkpoints leave them out."""

    content: Tensor | None
    taken: Tensor
    candidates: Tensor

    def __init__(
        self,
        recommender: Recommender,
        content: Tensor | None,
        train_counts: Tensor,
        optimizer: OptimizerConfig,
        alignment: float = 0.0,
        encoder_learning: EncoderLearning | None = None,
        negatives: int | None = None,
    ) -> None:
        """`content` float32 (num_items, width), or None where ids alone stand for items.

        `train_counts` int (num_items,): how often each item was taken in training. Those never taken
        are no candidates there: most were not for sale yet, and as negatives in every softmax they
        would learn one thing, to be ranked last. `negatives`: items drawn for each step beside its
        targets; None for the softmax over all.
        """
        super().__init__()
        self.recommender = recommender
        self.alignment = alignment
        self.encoder_learning = encoder_learning or EncoderLearning()
        self.negatives = negatives
        self.optimizer_config = optimizer
        encoder = recommender.encoder
        towers_learn = encoder is not None and any(p.requires_grad for p in encoder.parameters())
        self.register_buffer("content", content, persistent=towers_learn)
        self.register_buffer("taken", train_counts.float(), persistent=False)
        # Found once: on a GPU each step would wait for their number.
        candidates = train_counts.nonzero().squeeze(1)
        self.register_buffer("candidates", candidates, persistent=False)

    def item_vectors(self) -> Tensor:
        """(num_items, width), unit length, from the cache. Ids that learned nothing, of items never
        taken, say nothing: beside content their neighbours' stand in for them."""
        recommender, content = self.recommender, self.content
        vectors = recommender.adapt(content)
        if recommender.id_vectors is None or content is None or not len(self.candidates):
            return vectors
        rows = (self.taken == 0).nonzero().squeeze(1)
        if recommender.beside:
            known, taken = vectors.detach().float().cpu().numpy(), (self.taken > 0).cpu().numpy()
            ids = impute_cold_embeddings(recommender, content[rows], rows, known, taken)
        else:
            ids = content.new_zeros(len(rows), vectors.shape[1])
        return vectors.index_copy(0, rows, recommender.adapt(content[rows], rows, ids))

    def freeze_unused(self, batch: FinetuneBatch) -> list[str]:
        """See `pretrain.unused`; the cache stays as it is."""
        kept = None
        if batch.fresh is not None and self.content is not None:
            kept = self.content[batch.fresh]
        try:
            return freeze_unused(self, batch)
        finally:
            if kept is not None and self.content is not None and batch.fresh is not None:
                self.content[batch.fresh] = kept

    def on_train_start(self) -> None:
        self.train()  # weights come from disk in evaluation mode, and a resumed run must not begin so

    def training_step(self, batch: FinetuneBatch, batch_idx: int) -> Tensor:
        fresh, aligned = None, None
        if batch.fresh is not None:
            assert self.recommender.encoder is not None
            assert self.content is not None
            encoded = self.recommender.encoder(batch.content)
            fresh = without_common_shift(encoded.item, self.content[batch.fresh])
            # Every rank puts every rank's items into its cache, so that the caches stay the same.
            rows, read = gather_rows(batch.fresh), gather_rows(fresh.detach())
            self.content.index_copy_(0, rows, read.to(self.content.dtype))
            if self.alignment and self.recommender.encoder.pairs:
                losses = [align(encoded, *two) for two in self.recommender.encoder.pairs]
                aligned = torch.stack(losses).mean()
        tell = self._among_all if self.negatives is None else self._among_some
        loss = tell(batch, fresh, self.negatives or 0)
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.items))
        return loss if aligned is None else loss + self.alignment * aligned

    def _among_all(self, batch: FinetuneBatch, fresh: Tensor | None, _: int) -> Tensor:
        content = self.content
        if fresh is not None:
            assert content is not None
            assert batch.fresh is not None
            content = content.index_copy(0, batch.fresh, fresh)
        vectors = self.recommender.adapt(content)
        states = self.recommender.history(vectors[batch.items], batch.segments)
        return catalog_cross_entropy(
            states[:, :-1][batch.followed],
            vectors,
            batch.items[:, 1:][batch.followed],
            self.recommender.temperature(),
            self.taken > 0,
        )

    def _among_some(self, batch: FinetuneBatch, fresh: Tensor | None, negatives: int) -> Tensor:
        """Touches no more items than are read and drawn, however large the catalog."""
        targets = batch.items[:, 1:][batch.followed]
        drawn, log_expected = draw_negatives(targets, self.taken, self.candidates, negatives)
        rows, places = torch.cat([batch.items.flatten(), drawn]).unique(return_inverse=True)
        content = None if self.content is None else self.content[rows]
        if fresh is not None:
            assert content is not None
            assert batch.fresh is not None
            content = renewed(content, rows, batch.fresh, fresh)
        vectors = self.recommender.adapt(content, rows)
        read = places[: batch.items.numel()].view_as(batch.items)
        states = self.recommender.history(vectors[read], batch.segments)
        asked = torch.cat([read[:, 1:][batch.followed], places[batch.items.numel() :]])
        return sampled_cross_entropy(
            states[:, :-1][batch.followed],
            vectors[asked],
            targets,
            drawn,
            log_expected,
            self.recommender.temperature(),
        )

    def configure_optimizers(self) -> Any:
        """Discriminative rates, and a warm-up in which the encoder's rate is 0.

        The encoder's weights keep their gradients meanwhile: DDP and ZeRO wait for every one of them,
        and AdamW's moments are those of the present loss when the encoder begins to move.
        """
        config, steps = self.optimizer_config, self.trainer.max_steps
        encoder, learning = self.recommender.encoder, self.encoder_learning
        if encoder is None:
            return make_optimizer(self.parameters(), config, steps)
        rates = encoder_rates(encoder, learning, config.layer_decay)
        begins = round(learning.warmup * steps)
        windows = dict.fromkeys(rates, range(begins, steps)) if begins else None
        return make_optimizer(self.parameters(), config, steps, rates, windows)

    def train(self, mode: bool = True) -> Self:
        """Towers stay in evaluation mode: vectors with dropout would not match those in the cache. Where
        dropout of their low-rank updates is asked for (`lora.dropout`), it alone is at work."""
        super().train(mode)
        if self.recommender.encoder is not None:
            self.recommender.encoder.eval()
            for layer in self.recommender.encoder.modules():
                if isinstance(layer, LoraLayer):
                    layer.lora_dropout.train(mode)
        return self


def without_common_shift(fresh: Tensor, cached: Tensor) -> Tensor:
    """`fresh` item vectors without what all ranks' have moved by together since they were cached.

    `fresh` and `cached` (n, width) are of the same items. A shift all items share tells none of them
    apart, and the next whitening takes it off. Until then it would mark the few fresh items among the
    cached ones, and the towers would learn that mark.
    """
    moved = gather_rows(fresh - cached.to(fresh.dtype))
    return fresh if len(moved) < 2 else fresh - moved.mean(dim=0)


def encoder_rates(
    encoder: ItemEncoder, learning: EncoderLearning, layer_decay: float = 1.0
) -> dict[nn.Parameter, float]:
    """Each weight of the encoder → its share of the learning rate; lower layers' falls by `layer_decay`."""
    decayed = layer_rates(encoder, layer_decay)
    towers = set(encoder.towers.parameters())
    return {
        weight: (learning.tower_rate if weight in towers else learning.projection_rate)
        * decayed.get(weight, 1.0)
        for weight in encoder.parameters()
    }


def renewed(content: Tensor, rows: Tensor, fresh_rows: Tensor, fresh: Tensor) -> Tensor:
    """`content` of `rows` (n,), with `fresh` vectors for those among `fresh_rows` (ascending)."""
    places = torch.searchsorted(fresh_rows, rows).clamp(max=len(fresh_rows) - 1)
    is_fresh = (fresh_rows[places] == rows).unsqueeze(1)
    return torch.where(is_fresh, fresh[places].to(content.dtype), content)


def align(encoded: ItemVectors, one: int, other: int) -> Tensor:
    """Symmetric InfoNCE (CLIP) among one rank's fresh items that have both modalities."""
    both = encoded.present[:, one] & encoded.present[:, other]
    units = encoded.projected_embeddings[both]
    logits = units[:, one] @ units[:, other].T / ALIGNMENT_TEMPERATURE
    labels = torch.arange(len(logits), device=logits.device)
    if len(labels) == 0:
        return 0.0 * encoded.projected_embeddings.sum()
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
