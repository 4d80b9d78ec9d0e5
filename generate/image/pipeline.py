"""Draws pictures for (person, item): the trained networks and a solver, saved in diffusers' layout."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from torch import Tensor

from generate.image.config import SamplingConfig
from generate.image.denoiser import Conditioner, predict_clean
from generate.image.guidance import Case, Scales, guidance_weights
from generate.image.solvers import Estimate, solver_of, times_for
from generate.image.structure import CHANNELS
from pretrain.artifact import without_bars

PASSES = 8
"""Passes of the denoiser are filled up to a multiple of this: small matrices are multiplied in another
order than large ones, and a picture would differ in its last bits with how many are drawn beside it."""


class PersonalImagePipeline(DiffusionPipeline):
    """The item says what is drawn, the person how.

    `save_pretrained` and `from_pretrained` write and read `model_index.json` with the parts beside
    it.
    """

    conditioner: Conditioner
    denoiser: Any
    codec: Any

    def __init__(
        self,
        conditioner: Conditioner,
        denoiser: Any,
        codec: Any,
    ) -> None:
        """`denoiser` and `codec`: a `Denoiser` and a `PatchCodec`, or a pretrained base's
        (`generate.image.ip_adapter`)."""
        super().__init__()
        self.register_modules(conditioner=conditioner, denoiser=denoiser, codec=codec)
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
        structures: Tensor | None = None,
        scales: Scales = Scales(4.0, 3.0, 1.0),  # noqa: B008 – a tuple
        guidance_min_noise: float = 0.3,
        solver: str = "pc",
        steps: int = 12,
        shift: float = 1.0,
        frame: tuple[int, int] | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each seed.

        `user_states`, `item_vectors`: (num_pictures, width); `structures` (num_pictures, CHANNELS, rows,
        columns); None, or a row of zeros, where the condition is absent. A picture depends on its own
        row and seed, not on its neighbours in a batch. Scales above 1 count from time 1 (noise) down
        to `guidance_min_noise`: colours and shape are settled by then, and leaning further would only roughen
        them (Kynkäänniemi et al. 2024, "Applying guidance in a limited interval"). `frame` is one of
        the codec's, the first by default. `progress` is told how many pictures each batch finished.
        Raises VitrineError for steps below 1 and solvers it does not know.
        """
        # A pretrained base was trained up to a time that is not quite noise alone.
        start = float(getattr(self.denoiser, "latest_time", 1.0))
        times, solve = times_for(steps, shift, start), solver_of(solver)
        spread = ((1 - start) ** 2 + start**2) ** 0.5
        grid = self.codec.grid_of(frame or self.codec.frames[0])
        number = len(seeds)
        users = _conditions(user_states, (number, self.width), "user_states")
        items = _conditions(item_vectors, (number, self.width), "item_vectors")
        shapes = _conditions(structures, (number, CHANNELS, *grid), "structures")
        pictures: list[Image.Image] = []
        for start in range(0, number, batch_size):
            rows = slice(start, start + batch_size)
            estimate = self._estimate(
                users[rows], items[rows], shapes[rows], scales, guidance_min_noise
            )
            latents = solve(estimate, spread * self._noise(seeds[rows], grid), times)
            pixels = self.codec.decode(latents).cpu().numpy()
            pictures += [Image.fromarray(picture) for picture in pixels]
            if progress is not None:
                progress(len(pixels))
        return pictures

    def _noise(self, seeds: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """Each picture's own noise (batch, channels, rows, columns)."""
        channels = int(self.codec.config["channels"])
        noise = [
            torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(noise).to(self.device)

    def _estimate(
        self,
        users: Tensor,
        items: Tensor,
        structures: Tensor,
        scales: Scales,
        guidance_min_noise: float,
    ) -> Estimate:
        """The guided guess of clean latents for these conditions."""
        told = [part.to(self.device) for part in (users, items, structures)]
        guided = self._prepare(told, scales)
        plain = self._prepare(told, scales.plain())

        def estimate(latents: Tensor, time: float) -> Tensor:
            passes = guided if time >= guidance_min_noise else plain
            guesses = predict_clean(
                self.denoiser,
                latents[passes.rows],
                torch.full((len(passes.rows),), time, device=self.device),
                passes.tokens,
                passes.structures,
            )
            # The weights sum to 1, so guiding the guesses of x guides the velocities alike.
            return torch.zeros_like(latents).index_add(
                0, passes.rows, (guesses * passes.weights[:, None, None, None]).to(latents.dtype)
            )

        return estimate

    def _prepare(self, told: Sequence[Tensor], scales: Scales) -> "_Passes":
        """All passes of the denoiser that a batch needs, as one larger batch."""
        users, items, structures = told
        present = zip(*(part.flatten(1).ne(0).any(-1).tolist() for part in told), strict=True)
        found = [
            (row, case, weight)
            for row, has in enumerate(present)
            for case, weight in guidance_weights(Case(*has), scales).items()
        ]
        found += [(0, Case(), 0.0)] * (-len(found) % PASSES)
        rows = torch.tensor([row for row, _, _ in found], device=self.device)
        cases = torch.tensor([case for _, case, _ in found], device=self.device)
        weights = torch.tensor([weight for _, _, weight in found], device=self.device)
        tokens = self.conditioner(users[rows], items[rows], cases[:, 0], cases[:, 1])
        seen = structures[rows] * cases[:, 2, None, None, None]
        return _Passes(rows, weights, tokens, seen)


class _Passes(NamedTuple):
    rows: Tensor
    """int (passes,): the picture each pass is for."""
    weights: Tensor
    """float32 (passes,): how much it counts there."""
    tokens: Tensor
    """(passes, tokens, token_width)."""
    structures: Tensor
    """(passes, CHANNELS, rows, columns)."""


def pipeline_arguments(config: SamplingConfig) -> dict[str, Any]:
    """What of the settings the pipeline is told."""
    return {
        "scales": Scales(
            config.user_guidance_scale, config.item_guidance_scale, config.structure_guidance_scale
        ),
        "guidance_min_noise": config.guidance_min_noise,
        "solver": config.solver,
        "steps": config.steps,
        "shift": config.shift,
        "batch_size": config.batch_size,
    }


def _conditions(told: Tensor | None, shape: tuple[int, ...], name: str) -> Tensor:
    if told is None:
        return torch.zeros(shape)
    if tuple(told.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(told.shape)}; {shape} is one row for each seed.")
    return told.detach().to("cpu", torch.float32)
