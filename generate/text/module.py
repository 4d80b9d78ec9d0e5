"""Trains a text generator by token NLL: cross-entropy of each token, given user and item."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from generate.text.data import TextBatch
from generate.text.model import TextGenerator
from pretrain.config import OptimizerConfig
from pretrain.optim import make_optimizer


class TextModule(pl.LightningModule):
    frozen_is_unchanged = True
    """Frozen weights keep their initial values, so that checkpoints leave them out."""

    def __init__(
        self, generator: TextGenerator, optimizer: OptimizerConfig, lora_steps: int = 0
    ) -> None:
        """`lora_steps`: steps in which LoRA is trained alone; all other weights are trained after them."""
        super().__init__()
        self.generator = generator
        self.optimizer = optimizer
        self.lora_steps = lora_steps

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        nll, count = self.generator.summed_nll(*batch)
        # NLL per token of the whole step: ranks' texts differ in length, and their gradients are
        # averaged, so each rank divides by the mean number of tokens of all ranks.
        num_tokens = self.all_gather(count)
        assert isinstance(num_tokens, Tensor)
        loss = nll / num_tokens.float().mean()
        self.log("loss", loss, sync_dist=True, batch_size=batch.num_samples)
        return loss

    def configure_optimizers(self) -> Any:
        steps = self.trainer.max_steps
        schedule_windows: dict[nn.Parameter, range] = {}
        if self.lora_steps:
            first, second = range(self.lora_steps), range(self.lora_steps, steps)
            language_model = set(self.generator.language_model.parameters())
            schedule_windows = {
                p: first if p in language_model else second for p in self.parameters()
            }
        return make_optimizer(
            self.parameters(), self.optimizer, steps, schedule_windows=schedule_windows
        )
