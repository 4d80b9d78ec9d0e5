"""Trains the image generator by flow matching, conditioned on user, item, both or neither."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from generate.conditioning import condition_keep_mask
from generate.image.data import ImageBatch
from generate.image.denoiser import (
    Conditioner,
    loss_weight,
    noisy,
    predict_clean,
    sample_times,
)
from pretrain.config import OptimizerConfig
from pretrain.optim import make_optimizer


class ImageModule(pl.LightningModule):
    """Trains conditioner and denoiser, whose moving average (`optimizer.ema_decay`) draws the pictures."""

    frozen_is_unchanged = True
    """Weights that are not trained are those it was built with: checkpoints leave them out."""

    def __init__(
        self,
        conditioner: Conditioner,
        denoiser: nn.Module,
        optimizer: OptimizerConfig,
        *,
        drop_user: float = 0.1,
        drop_item: float = 0.3,
        drop_structure: float = 0.5,
    ) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.denoiser = denoiser
        self.optimizer_config = optimizer
        self.drop_user = drop_user
        self.drop_item = drop_item
        self.drop_structure = drop_structure

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        loss = self.flow_loss(batch)
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.latents))
        return loss

    def flow_loss(self, batch: ImageBatch) -> Tensor:
        """Flow-matching loss E w(t) ‖x̂(x_t) − x‖². From scratch w = 1: table 1 of Li & He 2025, x for both.

        They weigh by 1 / t², which makes it a loss of velocities and favours fine detail. In a run
        of minutes that detail is learned at the expense of whose colours the picture has. A pretrained
        base has the weights of what it predicts.
        """
        latents, device = batch.latents, batch.latents.device
        dropped = torch.tensor([self.drop_user, self.drop_item, self.drop_structure])
        drawn = [_draw(key, dropped, latents.shape[1:]) for key in batch.keys]
        kept, times, noise = (torch.stack(part) for part in zip(*drawn, strict=True))
        users, items, structures = kept.to(device).unbind(1)
        times, noise = times.to(device), noise.to(device)
        tokens = self.conditioner(batch.user_states, batch.item_vectors, users, items)
        structure = batch.structures * structures[:, None, None, None]
        mixed = noisy(latents, noise, times)
        estimate = predict_clean(self.denoiser, mixed, times, tokens, structure)
        error = (estimate.float() - latents).square().mean((1, 2, 3))
        return (loss_weight(self.denoiser, times) * error).mean()

    def networks(self) -> tuple[Conditioner, Any]:
        """What draws."""
        return self.conditioner.eval(), self.denoiser.eval()

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)


def _draw(key: int, dropped: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Kept conditions, a time and noise that a picture has whoever else is in its batch."""
    generator = torch.Generator().manual_seed(key)
    kept = condition_keep_mask(dropped, generator)
    return kept, sample_times(1, generator)[0], torch.randn(shape, generator=generator)
