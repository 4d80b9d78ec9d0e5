"""LightningModule of the image generator: flow matching with condition dropout."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from generate.conditioning import condition_keep_mask
from generate.image.config import ImageConfig
from generate.image.data import ImageBatch
from generate.image.denoiser import (
    Conditioner,
    Denoiser,
    add_noise,
    sample_times,
)
from generate.image.ip_adapter import AdaptedDenoiser
from pretrain.optim import make_optimizer


class ImageModule(pl.LightningModule):
    """Trains conditioner and denoiser, whose EMA (`optimizer.ema_decay`) generates the images."""

    frozen_is_unchanged = True
    """Frozen weights keep their initial values, so that checkpoints leave them out."""

    def __init__(
        self, conditioner: Conditioner, denoiser: Denoiser | AdaptedDenoiser, config: ImageConfig
    ) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.denoiser = denoiser
        self.optimizer_config = config.optimizer
        self.drop_probs = (config.drop_user, config.drop_item, config.drop_structure)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        loss = self.flow_matching_loss(batch)
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.latents))
        return loss

    def flow_matching_loss(self, batch: ImageBatch) -> Tensor:
        """Flow-matching loss E w(t) ‖x̂(x_t) − x‖²: the mean over rows, each at its own time.

        From scratch w = 1: prediction and loss are both of x (table 1 of Li & He 2025). Their default w =
        1 / t² is a loss of velocities and favours fine detail; in a training of minutes that detail is
        learned at the expense of the user's colours. On a pretrained base, w turns the error of x̂ into
        that of what the base predicts (`loss_weight`).
        """
        latents, device = batch.latents, batch.latents.device
        drop_probs = torch.tensor(self.drop_probs)
        rows = [_sample_row(key, drop_probs, latents.shape[1:]) for key in batch.keys]
        kept, times, noise = (torch.stack(part) for part in zip(*rows, strict=True))
        users, items, structures = kept.to(device).unbind(1)
        times, noise = times.to(device), noise.to(device)
        tokens = self.conditioner(batch.user_states, batch.item_vectors, users, items)
        structure = batch.structures * structures[:, None, None, None]
        mixed = add_noise(latents, noise, times)
        predicted = self.denoiser.predict_clean(mixed, times, tokens, structure)
        error = (predicted.float() - latents).square().mean((1, 2, 3))
        return (self.denoiser.loss_weight(times) * error).mean()

    def networks(self) -> tuple[Conditioner, Denoiser | AdaptedDenoiser]:
        """The trained networks, in eval mode."""
        return self.conditioner.eval(), self.denoiser.eval()

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)


def _sample_row(key: int, drop_probs: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Kept conditions, time and noise of a row, which depend on its key alone."""
    generator = torch.Generator().manual_seed(key)
    kept = condition_keep_mask(drop_probs, generator)
    return kept, sample_times(1, generator)[0], torch.randn(shape, generator=generator)
