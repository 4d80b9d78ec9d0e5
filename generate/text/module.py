"""Trains a text generator: the likelihood of each token of a text, given its person and item."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from generate.text.data import TextBatch
from generate.text.model import TextGenerator
from pretrain.config import OptimizerConfig
from pretrain.optim import make_optimizer


class TextModule(pl.LightningModule):
    frozen_is_unchanged = True
    """Weights that are not trained are those it was built with: checkpoints leave them out."""

    def __init__(
        self, generator: TextGenerator, optimizer: OptimizerConfig, lora_steps: int = 0
    ) -> None:
        """In the first `lora_steps` the language model's weights learn, after them all others."""
        super().__init__()
        self.generator = generator
        self.optimizer = optimizer
        self.lora_steps = lora_steps

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        losses, counts = self.generator(*batch)
        # Nats per token of the whole step: ranks' texts differ in length, and their gradients are
        # averaged, so each divides by the mean of what all of them have.
        tokens = self.all_gather(counts.sum())
        assert isinstance(tokens, Tensor)
        loss = losses.sum() / tokens.float().mean()
        self.log("loss", loss, sync_dist=True, batch_size=len(counts))
        return loss

    def configure_optimizers(self) -> Any:
        steps = self.trainer.max_steps
        turns: dict[nn.Parameter, range] = {}
        if self.lora_steps:
            first, second = range(self.lora_steps), range(self.lora_steps, steps)
            language_model = set(self.generator.language_model.parameters())
            turns = {p: first if p in language_model else second for p in self.parameters()}
        return make_optimizer(self.parameters(), self.optimizer, steps, schedule_windows=turns)
