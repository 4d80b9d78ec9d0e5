"""One step of learning to draw: clean a noisy picture, knowing the person, the item, both or neither."""

from typing import Any

import pytorch_lightning as pl
import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from generate.image.data import ImageBatch
from generate.image.denoiser import (
    Conditioner,
    clean_estimate,
    draw_times,
    noisy,
)
from pretrain.config import OptimizerConfig
from pretrain.optim import make_optimizer


class ImageModule(pl.LightningModule):
    """Trains conditioner and denoiser; their running average draws the pictures."""

    def __init__(
        self,
        conditioner: Conditioner,
        denoiser: PixArtTransformer2DModel,
        optimizer: OptimizerConfig,
        *,
        drop_user: float = 0.1,
        drop_item: float = 0.3,
        drop_structure: float = 0.5,
        ema_decay: float = 0.995,
    ) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.denoiser = denoiser
        self.average = AveragedModel(
            nn.ModuleDict({"conditioner": conditioner, "denoiser": denoiser}),
            multi_avg_fn=_warming_average(ema_decay),
        ).requires_grad_(False)
        self.optimizer_config = optimizer
        self.drop_user = drop_user
        self.drop_item = drop_item
        self.drop_structure = drop_structure

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        loss = self.flow_loss(batch)
        self.log("loss", loss, sync_dist=True, batch_size=len(batch.latents))
        return loss

    def flow_loss(self, batch: ImageBatch) -> Tensor:
        """E ‖x̂(x_t) − x‖², every time alike: table 1 of Li & He 2025 with x for both.

        They weigh by 1 / t², which makes it a loss of velocities and favours fine detail. In a run
        of minutes that detail is learned at the expense of whose colours the picture has.
        """
        latents, device = batch.latents, batch.latents.device
        dropped = torch.tensor([self.drop_user, self.drop_item, self.drop_structure])
        drawn = [_draw(key, latents.shape[1:]) for key in batch.keys]
        coins, times, noise = (torch.stack(part) for part in zip(*drawn, strict=True))
        users, items, structures = (coins >= dropped).to(device).unbind(1)
        times, noise = times.to(device), noise.to(device)
        tokens = self.conditioner(batch.user_states, batch.item_vectors, users, items)
        structure = batch.structures * structures[:, None, None, None]
        mixed = noisy(latents, noise, times)
        estimate = clean_estimate(self.denoiser, mixed, times, tokens, structure)
        return F.mse_loss(estimate.float(), latents)

    def on_train_start(self) -> None:
        self._averaged_step = self.trainer.global_step

    def configure_callbacks(self) -> list[pl.Callback]:
        return [_Averaging()]

    def take_into_average(self) -> None:
        if self.trainer.global_step != self._averaged_step:  # not between accumulated batches
            self._averaged_step = self.trainer.global_step
            self.average.update_parameters(
                nn.ModuleDict({"conditioner": self.conditioner, "denoiser": self.denoiser})
            )

    def averaged(self) -> tuple[Conditioner, PixArtTransformer2DModel]:
        """The networks to draw with."""
        networks: Any = self.average.module
        return networks["conditioner"].eval(), networks["denoiser"].eval()

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)


def _draw(key: int, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Three coins, a time and noise that a picture has whoever else is in its batch."""
    generator = torch.Generator().manual_seed(key)
    coins = torch.rand(3, generator=generator)
    return coins, draw_times(1, generator)[0], torch.randn(shape, generator=generator)


class _Averaging(pl.Callback):
    """A callback, because the module's own hook comes after the step's checkpoint is written."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        pl_module.take_into_average()


def _warming_average(decay: float) -> Any:
    """Decay min(decay, (1 + n) / (10 + n)) after n updates, so that a short run forgets its start."""

    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], num_averaged: Tensor | int) -> None:
        step = int(num_averaged)
        weight = 1 - min(decay, (1 + step) / (10 + step))
        for average, current in zip(averages, currents, strict=True):
            average.lerp_(current, weight)

    return update
