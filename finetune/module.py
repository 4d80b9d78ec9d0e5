"""Training step of fine-tuning: encode some items with gradient, predict every next item of the batch."""

from dataclasses import dataclass, field
from typing import Any, Self

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.cold_start import impute_cold_embeddings
from finetune.config import EncoderLearning, FinetuneConfig
from finetune.data import FinetuneBatch
from finetune.losses import full_softmax_loss, sample_negatives, sampled_softmax_loss
from finetune.recommender import Recommender
from pretrain.config import OptimizerConfig
from pretrain.distributed import gather_rows
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.optim import layer_rates, make_optimizer
from pretrain.unused_parameters import freeze_unused

ALIGNMENT_TEMPERATURE = 0.07


@dataclass(frozen=True)
class StepSettings:
    """Losses and learning rates of a training step."""

    optimizer: OptimizerConfig
    alignment: float = 0.0
    """Weight of the cross-modal InfoNCE of the items encoded in a step."""
    encoder_learning: EncoderLearning = field(default_factory=EncoderLearning)
    negatives: int | None = None
    """Negatives sampled per step beside the targets; None: full softmax."""

    @classmethod
    def of(cls, config: FinetuneConfig, num_items: int) -> "StepSettings":
        negatives = config.num_negatives(num_items)
        return cls(config.optimizer, config.alignment, config.encoder_learning, negatives)


class FinetuneModule(pl.LightningModule):
    """End-to-end training at the cost of a few encoded items per step.

    `content` caches the content embeddings of all items. A step encodes `encode_items` items with
    gradient, writes them into the cache, and takes the softmax over the whole catalog: the fresh items
    are positives and negatives of every position; all others have their cached embeddings.
    """

    frozen_is_unchanged = True
    """Frozen weights equal those the module was built with, so checkpoints leave them out."""

    content: Tensor | None
    item_counts: Tensor
    candidates: Tensor

    def __init__(
        self,
        recommender: Recommender,
        content: Tensor | None,
        train_counts: Tensor,
        settings: StepSettings,
    ) -> None:
        """`content` float32 (num_items, width), or None for id embeddings alone.

        `train_counts` int (num_items,): training interactions of each item. Cold items (count 0) are no
        candidates in training: most were not for sale yet, and as negatives of every softmax they would
        only learn to rank last.
        """
        super().__init__()
        self.recommender = recommender
        self.settings = settings
        encoder = recommender.encoder
        towers_learn = encoder is not None and any(p.requires_grad for p in encoder.parameters())
        self.register_buffer("content", content, persistent=towers_learn)
        self.register_buffer("item_counts", train_counts.float(), persistent=False)
        # Computed once: on a GPU each step would wait for their number.
        candidates = train_counts.nonzero().squeeze(1)
        self.register_buffer("candidates", candidates, persistent=False)

    def item_vectors(self) -> Tensor:
        """(num_items, width), unit length, from the cache. A cold item's untrained id embedding is replaced:
        by the imputed one (`finetune.cold_start`) where it is concatenated to content, else by zeros."""
        recommender, content = self.recommender, self.content
        vectors = recommender.adapt(content)
        if recommender.id_embeddings is None or content is None or not len(self.candidates):
            return vectors
        rows = (self.item_counts == 0).nonzero().squeeze(1)
        if recommender.has_separate_ids:
            known, item_counts = (
                vectors.detach().float().cpu().numpy(),
                (self.item_counts > 0).cpu().numpy(),
            )
            ids = impute_cold_embeddings(recommender, content[rows], rows, known, item_counts)
        else:
            ids = content.new_zeros(len(rows), vectors.shape[1])
        return vectors.index_copy(0, rows, recommender.adapt(content[rows], rows, ids))

    def freeze_unused(self, batch: FinetuneBatch) -> list[str]:
        """Freezes weights that no step reads (`pretrain.unused_parameters`); leaves the cache unchanged."""
        cached = None
        if batch.fresh is not None and self.content is not None:
            cached = self.content[batch.fresh]
        try:
            return freeze_unused(self, batch)
        finally:
            if cached is not None and self.content is not None and batch.fresh is not None:
                self.content[batch.fresh] = cached

    def on_train_start(self) -> None:
        self.train()  # loaded weights are in evaluation mode, also in a resumed run

    def training_step(self, batch: FinetuneBatch, batch_idx: int) -> Tensor:
        fresh, aligned = None, None
        if batch.fresh is not None:
            assert self.recommender.encoder is not None
            assert self.content is not None
            encoded = self.recommender.encoder(batch.content)
            fresh = remove_common_shift(encoded.item, self.content[batch.fresh])
            # Every rank writes all ranks' items into its cache, so that all caches stay equal.
            rows, read = gather_rows(batch.fresh), gather_rows(fresh.detach())
            self.content.index_copy_(0, rows, read.to(self.content.dtype))
            if self.settings.alignment and self.recommender.encoder.pairs:
                losses = [alignment_loss(encoded, *two) for two in self.recommender.encoder.pairs]
                aligned = torch.stack(losses).mean()
        next_item_loss = (
            self.full_softmax if self.settings.negatives is None else self.sampled_softmax
        )
        loss = next_item_loss(batch, fresh, self.settings.negatives or 0)
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.items))
        return loss if aligned is None else loss + self.settings.alignment * aligned

    def full_softmax(self, batch: FinetuneBatch, fresh: Tensor | None, _: int) -> Tensor:
        content = self.content
        if fresh is not None:
            assert content is not None
            assert batch.fresh is not None
            content = content.index_copy(0, batch.fresh, fresh)
        vectors = self.recommender.adapt(content)
        states = self.recommender.history(vectors[batch.items], batch.segments)
        return full_softmax_loss(
            states[:, :-1][batch.followed],
            vectors,
            batch.items[:, 1:][batch.followed],
            self.recommender.temperature(),
            self.item_counts > 0,
        )

    def sampled_softmax(self, batch: FinetuneBatch, fresh: Tensor | None, negatives: int) -> Tensor:
        """Embeds only the items of the batch and the sampled negatives, however large the catalog."""
        targets = batch.items[:, 1:][batch.followed]
        drawn, log_q = sample_negatives(targets, self.item_counts, self.candidates, negatives)
        rows, positions = torch.cat([batch.items.flatten(), drawn]).unique(return_inverse=True)
        content = None if self.content is None else self.content[rows]
        if fresh is not None:
            assert content is not None
            assert batch.fresh is not None
            content = replace_fresh(content, rows, batch.fresh, fresh)
        vectors = self.recommender.adapt(content, rows)
        history = positions[: batch.items.numel()].view_as(batch.items)
        states = self.recommender.history(vectors[history], batch.segments)
        keys = torch.cat([history[:, 1:][batch.followed], positions[batch.items.numel() :]])
        return sampled_softmax_loss(
            states[:, :-1][batch.followed],
            vectors[keys],
            targets,
            drawn,
            log_q,
            self.recommender.temperature(),
        )

    def configure_optimizers(self) -> Any:
        """AdamW with discriminative learning rates, and a warm-up in which the encoder's rate is 0.

        The encoder's weights keep their gradients during the warm-up: DDP and ZeRO wait for each of them,
        and AdamW's moments are up to date when the encoder starts to learn.
        """
        config, steps = self.settings.optimizer, self.trainer.max_steps
        encoder, learning = self.recommender.encoder, self.settings.encoder_learning
        if encoder is None:
            return make_optimizer(self.parameters(), config, steps)
        rates = encoder_rates(encoder, learning, config.layer_decay)
        begins = round(learning.warmup * steps)
        windows = dict.fromkeys(rates, range(begins, steps)) if begins else None
        return make_optimizer(self.parameters(), config, steps, rates, windows)

    def train(self, mode: bool = True) -> Self:
        """Towers stay in evaluation mode: embeddings with dropout would not match the cached ones. Only the
        dropout of their low-rank updates (`lora.dropout`) is active."""
        super().train(mode)
        if self.recommender.encoder is not None:
            self.recommender.encoder.eval()
            for layer in self.recommender.encoder.modules():
                if isinstance(layer, LoraLayer):
                    layer.lora_dropout.train(mode)
        return self


def remove_common_shift(fresh: Tensor, cached: Tensor) -> Tensor:
    """`fresh` embeddings minus the mean shift, over all ranks, from their `cached` values.

    `fresh` and `cached` (n, width) are of the same items. A shift that all items share distinguishes none
    of them, and the next whitening removes it. Until then it would mark the few fresh items among the
    cached ones, and the towers would learn that mark.
    """
    moved = gather_rows(fresh - cached.to(fresh.dtype))
    return fresh if len(moved) < 2 else fresh - moved.mean(dim=0)


def encoder_rates(
    encoder: ItemEncoder, learning: EncoderLearning, layer_decay: float = 1.0
) -> dict[nn.Parameter, float]:
    """Learning rate factor of each encoder weight; it falls by `layer_decay` per layer downwards."""
    decayed = layer_rates(encoder, layer_decay)
    towers = set(encoder.towers.parameters())
    return {
        weight: (learning.tower_rate if weight in towers else learning.projection_rate)
        * decayed.get(weight, 1.0)
        for weight in encoder.parameters()
    }


def replace_fresh(content: Tensor, rows: Tensor, fresh_rows: Tensor, fresh: Tensor) -> Tensor:
    """`content` of `rows` (n,), with the `fresh` embeddings for those in `fresh_rows` (ascending)."""
    positions = torch.searchsorted(fresh_rows, rows).clamp(max=len(fresh_rows) - 1)
    is_fresh = (fresh_rows[positions] == rows).unsqueeze(1)
    return torch.where(is_fresh, fresh[positions].to(content.dtype), content)


def alignment_loss(encoded: ItemVectors, one: int, other: int) -> Tensor:
    """Symmetric InfoNCE (CLIP) between two modalities of one rank's fresh items that have both."""
    both = encoded.present[:, one] & encoded.present[:, other]
    units = encoded.projected_embeddings[both]
    logits = units[:, one] @ units[:, other].T / ALIGNMENT_TEMPERATURE
    labels = torch.arange(len(logits), device=logits.device)
    if len(labels) == 0:
        return 0.0 * encoded.projected_embeddings.sum()
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
