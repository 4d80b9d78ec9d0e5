"""Draws pictures for (person, item): the trained networks and a solver, saved in diffusers' layout."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils import logging
from PIL import Image
from torch import Tensor

from generate.image.codec import PatchCodec
from generate.image.denoiser import Conditioner, clean_estimate, velocity
from generate.image.guidance import Case, guidance_weights


class PersonalImagePipeline(DiffusionPipeline):
    """The item says what is drawn, the person how.

    `save_pretrained` and `from_pretrained` write and read `model_index.json` with the parts beside
    it.
    """

    conditioner: Conditioner
    denoiser: PixArtTransformer2DModel
    codec: PatchCodec
    scheduler: FlowMatchEulerDiscreteScheduler

    def __init__(
        self,
        conditioner: Conditioner,
        denoiser: PixArtTransformer2DModel,
        codec: PatchCodec,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            conditioner=conditioner, denoiser=denoiser, codec=codec, scheduler=scheduler
        )
        self.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """As in diffusers, without its progress bar: these parts load in an instant."""
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            return super().from_pretrained(*args, **kwargs)
        finally:
            if shown:
                logging.enable_progress_bar()

    @property
    def width(self) -> int:
        """Width of the user states and item vectors this generator was trained with."""
        return int(self.conditioner.config["width"])

    @torch.no_grad()
    def __call__(
        self,
        user_states: Tensor | None,
        item_vectors: Tensor | None,
        seeds: Sequence[int],
        user_scale: float = 3.0,
        item_scale: float = 2.0,
        steps: int = 16,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each seed.

        `user_states`, `item_vectors`: (num_pictures, width); None, or a row of zeros, where the
        condition is absent. A picture depends on its own row and seed, not on its neighbours in a
        batch. `progress` is told how many pictures each batch finished.
        """
        shape = (len(seeds), self.width)
        users = _conditions(user_states, shape, "user_states")
        items = _conditions(item_vectors, shape, "item_vectors")
        pictures: list[Image.Image] = []
        for start in range(0, len(seeds), batch_size):
            rows = slice(start, start + batch_size)
            latents = self._solve(
                self._noise(seeds[rows]), users[rows], items[rows], user_scale, item_scale, steps
            )
            pixels = self.codec.decode(latents).cpu().numpy()
            pictures += [Image.fromarray(picture) for picture in pixels]
            if progress is not None:
                progress(len(pixels))
        return pictures

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """Each picture's own noise (batch, channels, grid, grid)."""
        channels, grid = self.denoiser.config["out_channels"], self.denoiser.config["sample_size"]
        noise = [
            torch.randn(channels, grid, grid, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(noise).to(self.device)

    def _solve(
        self,
        latents: Tensor,
        users: Tensor,
        items: Tensor,
        user_scale: float,
        item_scale: float,
        steps: int,
    ) -> Tensor:
        """Follows the guided velocity from noise to clean latents (batch, channels, grid, grid)."""
        passes = _passes(users, items, user_scale, item_scale)
        rows = torch.cat([rows for _, rows, _ in passes]).to(self.device)
        weights = torch.cat([weights for _, _, weights in passes]).to(self.device)
        sees_user = torch.cat([torch.full(r.shape, case.user) for case, r, _ in passes])
        sees_item = torch.cat([torch.full(r.shape, case.item) for case, r, _ in passes])
        tokens = self.conditioner(
            users.to(self.device)[rows],
            items.to(self.device)[rows],
            sees_user.to(self.device),
            sees_item.to(self.device),
        )
        scheduler: Any = self.scheduler
        # The last step starts at 1 / steps and lands on the estimate of x itself.
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), device=self.device)
        for timestep in scheduler.timesteps:
            times = (timestep / scheduler.config["num_train_timesteps"]).expand(len(rows))
            stacked = latents[rows]
            estimate = clean_estimate(self.denoiser, stacked, times, tokens)
            estimates = torch.zeros_like(latents).index_add(
                0, rows, estimate * weights[:, None, None, None]
            )
            # The weights sum to 1, so guiding the estimates of x guides the velocities alike.
            step = velocity(latents, estimates, times[: len(latents)])
            latents = scheduler.step(step, timestep, latents, return_dict=False)[0]
        return latents


def _conditions(vectors: Tensor | None, shape: tuple[int, int], name: str) -> Tensor:
    if vectors is None:
        return torch.zeros(shape)
    if tuple(vectors.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(vectors.shape)}; {shape} is one row for each seed."
        )
    return vectors.detach().to("cpu", torch.float32)


def _passes(
    users: Tensor, items: Tensor, user_scale: float, item_scale: float
) -> list[tuple[Case, Tensor, Tensor]]:
    """(case, rows that need it, their weights) for each distinct pass of the denoiser."""
    has_user, has_item = users.ne(0).any(-1).tolist(), items.ne(0).any(-1).tolist()
    found: dict[Case, list[tuple[int, float]]] = {}
    for row, present in enumerate(zip(has_user, has_item, strict=True)):
        for case, weight in guidance_weights(*present, user_scale, item_scale).items():
            found.setdefault(case, []).append((row, weight))
    return [
        (case, torch.tensor([r for r, _ in entries]), torch.tensor([w for _, w in entries]))
        for case, entries in sorted(found.items())
    ]
