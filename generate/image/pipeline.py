"""Draws pictures for (person, item): the trained networks and a solver, saved in diffusers' layout."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

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

from catalog.errors import VitrineError
from generate.image.codec import PatchCodec
from generate.image.denoiser import Conditioner, clean_estimate, velocity
from generate.image.guidance import guidance_weights
from pretrain.artifact import without_bars


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
        with without_bars(logging):
            return super().from_pretrained(*args, **kwargs)

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
        user_scale: float = 6.0,
        item_scale: float = 3.0,
        guide_above: float = 0.6,
        steps: int = 12,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each seed.

        `user_states`, `item_vectors`: (num_pictures, width); None, or a row of zeros, where the
        condition is absent. A picture depends on its own row and seed, not on its neighbours in a
        batch. Scales other than 1 count from time 1 (noise) down to `guide_above`: colours and shape
        are settled by then, and leaning further would only roughen them (Kynkäänniemi et al. 2024,
        "Applying guidance in a limited interval"). `progress` is told how many pictures each batch
        finished. Raises VitrineError for steps below 1.
        """
        if steps < 1:
            raise VitrineError(f"steps {steps} draws nothing; use 1 or more, 12 is a good start.")
        shape = (len(seeds), self.width)
        users = _conditions(user_states, shape, "user_states")
        items = _conditions(item_vectors, shape, "item_vectors")
        pictures: list[Image.Image] = []
        for start in range(0, len(seeds), batch_size):
            rows = slice(start, start + batch_size)
            latents = self._solve(
                self._noise(seeds[rows]),
                users[rows],
                items[rows],
                user_scale,
                item_scale,
                guide_above,
                steps,
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
        guide_above: float,
        steps: int,
    ) -> Tensor:
        """Follows the guided velocity from noise to clean latents (batch, channels, grid, grid)."""
        users, items = users.to(self.device), items.to(self.device)
        guided = self._prepare(users, items, user_scale, item_scale)
        plain = self._prepare(users, items, 1.0, 1.0)
        scheduler: Any = self.scheduler
        # The last step starts at 1 / steps and lands on the estimate of x itself.
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), device=self.device)
        for timestep in scheduler.timesteps:
            time = timestep / scheduler.config["num_train_timesteps"]
            passes = guided if time >= guide_above else plain
            times = time.expand(len(passes.rows))
            estimates = clean_estimate(self.denoiser, latents[passes.rows], times, passes.tokens)
            # The weights sum to 1, so guiding the estimates of x guides the velocities alike.
            estimate = torch.zeros_like(latents).index_add(
                0, passes.rows, estimates * passes.weights[:, None, None, None]
            )
            step = velocity(latents, estimate, time.expand(len(latents)))
            latents = scheduler.step(step, timestep, latents, return_dict=False)[0]
        return latents

    def _prepare(
        self, users: Tensor, items: Tensor, user_scale: float, item_scale: float
    ) -> "_Passes":
        """All passes of the denoiser that a batch needs, as one larger batch."""
        has_user, has_item = users.ne(0).any(-1).tolist(), items.ne(0).any(-1).tolist()
        found = [
            (row, case, weight)
            for row, present in enumerate(zip(has_user, has_item, strict=True))
            for case, weight in guidance_weights(*present, user_scale, item_scale).items()
        ]
        rows = torch.tensor([row for row, _, _ in found], device=self.device)
        cases = torch.tensor([case for _, case, _ in found], device=self.device)
        weights = torch.tensor([weight for _, _, weight in found], device=self.device)
        tokens = self.conditioner(users[rows], items[rows], cases[:, 0], cases[:, 1])
        return _Passes(rows, weights, tokens)


class _Passes(NamedTuple):
    rows: Tensor
    """int (passes,): the picture each pass is for."""
    weights: Tensor
    """float32 (passes,): how much it counts there."""
    tokens: Tensor
    """(passes, tokens, token_width)."""


def _conditions(vectors: Tensor | None, shape: tuple[int, int], name: str) -> Tensor:
    if vectors is None:
        return torch.zeros(shape)
    if tuple(vectors.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(vectors.shape)}; {shape} is one row for each seed."
        )
    return vectors.detach().to("cpu", torch.float32)
