"""Samples images for (user, item): trained networks, guidance and a solver, in diffusers' saved layout."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from torch import Tensor, nn

from generate.image.base_placement import check_memory_settings, place_networks
from generate.image.codec import Codec
from generate.image.config import SamplingConfig
from generate.image.denoiser import Conditioner, LatentDenoiser
from generate.image.guidance import Conditions, GuidanceScales, guidance_weights
from generate.image.ip_adapter import AdaptedDenoiser
from generate.image.resolution_buckets import ImageSize
from generate.image.solvers import PredictClean, get_solver, time_schedule
from generate.image.structure import CHANNELS
from generate.image.vae import VaeCodec
from pretrain.artifact import without_bars
from pretrain.devices import Compute, on_cpu

PASS_MULTIPLE = 8
"""Passes of the denoiser are padded to a multiple of this: small matrices are multiplied in another
order than large ones, and an image would differ in its last bits with the size of its batch."""


class PersonalImagePipeline(DiffusionPipeline):
    """A diffusers pipeline: the item condition determines what is shown, the user condition its style.

    `save_pretrained` and `from_pretrained` write and read `model_index.json` with the components beside
    it.
    """

    conditioner: Conditioner
    denoiser: LatentDenoiser
    codec: Codec

    def __init__(self, conditioner: Conditioner, denoiser: LatentDenoiser, codec: Codec) -> None:
        """`denoiser` and `codec`: a `Denoiser` and a `PatchCodec`, or those of a pretrained base
        (`generate.image.ip_adapter`)."""
        super().__init__()
        self.register_modules(conditioner=conditioner, denoiser=denoiser, codec=codec)
        self.compute: Compute | None = None
        self.offload: str | None = None
        self.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """As in diffusers, without its progress bar."""
        with without_bars(logging):
            return super().from_pretrained(*args, **kwargs)

    def place(self, compute: Compute) -> Self:
        """Moves the networks to the device, in the precision; the codec stays in float32.

        A pretrained base is moved when it is first sampled, as the sampling's `offload` says.
        """
        assert isinstance(self.conditioner, nn.Module)
        compute.place(self.conditioner)
        self.compute, self.offload = compute, None
        if not isinstance(self.denoiser, AdaptedDenoiser):
            place_networks(self.denoiser, self.codec, compute, "none")
            self.offload = "none"
        return self

    def _arrange(self, config: SamplingConfig) -> None:
        """Applies the settings that save memory; VitrineError where they have nothing to apply to."""
        check_memory_settings(self.denoiser, self.compute or on_cpu(), config)
        if isinstance(self.codec, VaeCodec):
            self.codec.save_memory(config.vae_slicing, config.vae_tiling)
        if self.compute is not None and self.offload != config.offload:
            place_networks(self.denoiser, self.codec, self.compute, config.offload)
            self.offload = config.offload

    @property
    def device(self) -> torch.device:
        """Where images are computed, also while weights are offloaded."""
        return self.compute.device if self.compute is not None else super().device

    @property
    def width(self) -> int:
        """Width of the user states and item embeddings this generator was trained with."""
        return int(self.conditioner.config["width"])

    @torch.no_grad()
    def __call__(
        self,
        user_states: Tensor | None,
        item_vectors: Tensor | None,
        seeds: Sequence[int],
        config: SamplingConfig,
        structures: Tensor | None = None,
        size: ImageSize | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """Samples one image for each seed, without watermark.

        `user_states`, `item_vectors`: (num_images, width); `structures` (num_images, CHANNELS, rows,
        columns); None, or a row of zeros, where the condition is absent. An image depends on its own
        row and seed, not on its batch. Guidance scales above 1 apply from time 1 (noise) down to
        `config.guidance_min_noise`: colours and shape are settled by then, and more guidance would only
        roughen them (Kynkäänniemi et al. 2024, "Applying guidance in a limited interval"). `size` is one
        of the codec's resolution buckets, the first by default. `progress` is called with the number of
        images of each batch. Raises VitrineError for steps below 1, unknown solvers, and settings that
        save memory where there is none to save.
        """
        self._arrange(config)
        # A pretrained base was trained up to a time that is not quite noise alone.
        latest = self.denoiser.latest_time
        times = time_schedule(config.steps, config.shift, latest)
        solve = get_solver(config.solver)
        spread = ((1 - latest) ** 2 + latest**2) ** 0.5
        grid = self.codec.latent_grid(size or self.codec.buckets[0])
        number = len(seeds)
        users = _batch_of(user_states, (number, self.width), "user_states")
        items = _batch_of(item_vectors, (number, self.width), "item_vectors")
        outlines = _batch_of(structures, (number, CHANNELS, *grid), "structures")
        images: list[Image.Image] = []
        for start in range(0, number, config.batch_size):
            rows = slice(start, start + config.batch_size)
            predict = self._guided(users[rows], items[rows], outlines[rows], config)
            latents = solve(predict, spread * self._noise(seeds[rows], grid), times)
            pixels = self.codec.decode(latents).cpu().numpy()
            images += [Image.fromarray(image) for image in pixels]
            if progress is not None:
                progress(len(pixels))
        return images

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.compute is None else self.compute.autocast()

    def _noise(self, seeds: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """Each image's own noise (batch, channels, rows, columns)."""
        channels = int(self.codec.config["channels"])
        noise = [
            torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(noise).to(self.device)

    def _guided(
        self, users: Tensor, items: Tensor, structures: Tensor, config: SamplingConfig
    ) -> PredictClean:
        """The guided prediction of clean latents under these conditions."""
        inputs = [part.to(self.device) for part in (users, items, structures)]
        scales = guidance_scales(config)
        guided = self._prepare_passes(inputs, scales)
        plain = self._prepare_passes(inputs, scales.without_guidance())

        def predict(latents: Tensor, time: float) -> Tensor:
            passes = guided if time >= config.guidance_min_noise else plain
            with self._autocast():
                predictions = self._predict_in_chunks(latents[passes.rows], time, passes)
            # The weights sum to 1, so guiding predictions of x guides the velocities alike.
            weighted = (predictions * passes.weights[:, None, None, None]).to(latents.dtype)
            return torch.zeros_like(latents).index_add(0, passes.rows, weighted)

        return predict

    def _predict_in_chunks(self, noisy: Tensor, time: float, passes: "_Passes") -> Tensor:
        """The denoiser's predictions of all passes; a pretrained base's by PASS_MULTIPLE, as its convolutions
        and attention round by the size of the batch."""
        is_base = isinstance(self.denoiser, AdaptedDenoiser)
        size = PASS_MULTIPLE if is_base else len(noisy)
        parts = (noisy, passes.tokens, passes.structures)
        chunks = zip(*(part.split(size) for part in parts), strict=True)
        predicted = [
            self.denoiser.predict_clean(
                latents, torch.full((len(latents),), time, device=self.device), tokens, structures
            )
            for latents, tokens, structures in chunks
        ]
        return torch.cat(predicted)

    def _prepare_passes(self, inputs: Sequence[Tensor], scales: GuidanceScales) -> "_Passes":
        """All passes of the denoiser that a batch needs, as one larger batch."""
        users, items, structures = inputs
        present = zip(*(part.flatten(1).ne(0).any(-1).tolist() for part in inputs), strict=True)
        passes = [
            (row, conditions, weight)
            for row, flags in enumerate(present)
            for conditions, weight in guidance_weights(Conditions(*flags), scales).items()
        ]
        passes += [(0, Conditions(), 0.0)] * (-len(passes) % PASS_MULTIPLE)
        rows = torch.tensor([row for row, _, _ in passes], device=self.device)
        masks = torch.tensor([conditions for _, conditions, _ in passes], device=self.device)
        weights = torch.tensor([weight for _, _, weight in passes], device=self.device)
        with self._autocast():
            tokens = self.conditioner(users[rows], items[rows], masks[:, 0], masks[:, 1])
        return _Passes(rows, weights, tokens, structures[rows] * masks[:, 2, None, None, None])


class _Passes(NamedTuple):
    rows: Tensor
    """int (passes,): the image that each pass is for."""
    weights: Tensor
    """float32 (passes,): its weight in that image's prediction."""
    tokens: Tensor
    """(passes, tokens, token_width)."""
    structures: Tensor
    """(passes, CHANNELS, rows, columns)."""


def guidance_scales(config: SamplingConfig) -> GuidanceScales:
    return GuidanceScales(
        config.user_guidance_scale, config.item_guidance_scale, config.structure_guidance_scale
    )


def _batch_of(condition: Tensor | None, shape: tuple[int, ...], name: str) -> Tensor:
    """`condition` as float32 on the CPU, zeros for None; ValueError for another shape."""
    if condition is None:
        return torch.zeros(shape)
    if tuple(condition.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(condition.shape)}; {shape} is one row for each seed."
        )
    return condition.detach().to("cpu", torch.float32)
