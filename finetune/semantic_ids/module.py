"""Training step for semantic ids: the likelihood of the next item's codes, and a dense retrieval loss."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from finetune.data import FinetuneBatch
from finetune.losses import full_softmax_loss, sample_negatives, sampled_softmax_loss
from finetune.semantic_ids.model import SemanticRecommender
from pretrain.config import OptimizerConfig
from pretrain.distributed import sum_over_ranks, world
from pretrain.optim import make_optimizer


class SemanticModule(pl.LightningModule):
    """The loss is −log p(next item | history) plus `dense_loss_weight` times a softmax cross-entropy of dense
    scores (LIGER, Yang et al., 2024). Cold items are candidates in neither."""

    content: Tensor
    item_counts: Tensor
    candidates: Tensor
    candidate_counts: Tensor

    def __init__(
        self,
        model: SemanticRecommender,
        content: Tensor,
        train_counts: Tensor,
        optimizer: OptimizerConfig,
        dense_loss_weight: float,
        negatives: int | None = None,
    ) -> None:
        """`content` float32 (num_items, width); `train_counts` and `negatives`: see `FinetuneModule`."""
        super().__init__()
        self.model = model
        self.dense_loss_weight = dense_loss_weight
        self.negatives = negatives
        self.optimizer_config = optimizer
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("item_counts", train_counts.float(), persistent=False)
        candidates = train_counts.nonzero().squeeze(1)
        self.register_buffer("candidates", candidates, persistent=False)
        self.register_buffer(
            "candidate_counts", model.trie.prefix_counts(train_counts > 0), persistent=False
        )

    def on_train_start(self) -> None:
        self.train()  # the sequence encoder is loaded in evaluation mode

    def training_step(self, batch: FinetuneBatch, batch_idx: int) -> Tensor:
        states = self.model.states(batch.items, batch.segments)[:, :-1][batch.followed]
        targets = batch.items[:, 1:][batch.followed]
        nll = -self.model.log_likelihood(states, targets, self.candidate_counts).sum()
        positions = sum_over_ranks(torch.tensor(len(targets), device=states.device))
        codes_loss = (
            nll * world()[1] / positions.clamp(min=1)
        )  # over ranks: the mean of all positions
        self.log("codes_loss", codes_loss, sync_dist=True, batch_size=len(batch.items))
        if not self.dense_loss_weight:
            return codes_loss
        loss = self._dense_loss(states, targets)
        self.log("dense_loss", loss, sync_dist=True, batch_size=len(batch.items))
        return codes_loss + self.dense_loss_weight * loss

    def _dense_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        recommender = self.model.recommender
        scale = recommender.temperature()
        if self.negatives is None:
            vectors = recommender.adapt(self.content)
            return full_softmax_loss(states, vectors, targets, scale, self.item_counts > 0)
        drawn, log_q = sample_negatives(targets, self.item_counts, self.candidates, self.negatives)
        vectors = recommender.adapt(self.content[torch.cat([targets, drawn])])
        return sampled_softmax_loss(states, vectors, targets, drawn, log_q, scale)

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)
