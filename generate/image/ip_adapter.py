"""IP-Adapter: a frozen pretrained diffusion model, conditioned on item and user by adapters.

A second attention over the condition tokens of item and user is added to the base's own (decoupled
cross-attention: Ye et al. 2023, IP-Adapter; `generate.image.base_attention`), whose output is zero at
first; LoRA updates the attention matrices. Whatever the base predicts, on whichever noise path, is turned
into x̂ at a time of our flow (`generate.image.base_paths`), so solvers, guidance and the training loop apply
unchanged.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from peft import LoraConfig as PeftLora
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.image.base_families import BaseFamily, BaseInputs
from generate.image.base_paths import BasePath, base_path
from generate.image.denoiser import Conditioner
from generate.image.pretrained_base import (
    denoising_network,
    family_of,
    load_base,
    prompt_embeddings,
)
from generate.image.structure import CHANNELS
from generate.image.vae import VaeCodec, downsampling_factor
from pretrain.shards import cast_like

BASE_FILE, ADAPTER_FILE, CONDITIONER = "base.json", "adapter.safetensors", "conditioner"
PROMPT_FILE = "prompt.safetensors"
"""Text embeddings of the prompt: text encoders, often larger than the base, are needed in training alone."""
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
"""Matrices of the base's attention that LoRA updates."""


class AdaptedDenoiser(nn.Module):
    """Predicts clean latents with a frozen base of any family in `generate.image.base_families`."""

    def __init__(
        self,
        base: Any,
        family: BaseFamily,
        path: BasePath,
        prompt: Mapping[str, Tensor],
        token_width: int,
        lora: LoraConfig,
        *,
        pixels_per_position: int = 8,
        guidance: float = 3.5,
    ) -> None:
        """`prompt`: keyword arguments of the base of batch 1, the same for every image;
        `pixels_per_position`: the VAE's; `guidance`: the scale that a guidance-distilled base takes."""
        super().__init__()
        self.base: Any = base.requires_grad_(False)
        self.family, self.path = family, path
        self.pixels_per_position, self.guidance = pixels_per_position, guidance
        self.alone = False
        """True within `without_adapters`."""
        if lora.rank:
            updates = PeftLora(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=LORA_TARGETS,
            )
            inject_adapter_in_model(updates, base)
        family.add_adapters(base, token_width)
        self.structure_in = nn.Conv2d(CHANNELS, self.channels, 1, bias=False)
        nn.init.zeros_(self.structure_in.weight)
        self.trained_names = frozenset(
            name for name, weight in self.named_parameters() if weight.requires_grad
        )
        """Parameters of adapters, LoRA and structure input; all others are the base's own."""
        self.prompt_names = sorted(prompt)
        for name in self.prompt_names:
            # A file's tensors may lie anywhere in memory, and kernels round by how they lie.
            self.register_buffer(f"prompt_{name}", prompt[name].contiguous().clone())

    @property
    def device(self) -> torch.device:
        return self.structure_in.weight.device

    @property
    def latest_time(self) -> float:
        """The time of the greatest noise that the base was trained at."""
        return self.path.latest_time

    @property
    def channels(self) -> int:
        return self.family.latent_channels(self.base.config)

    def adapter_state(self) -> dict[str, Tensor]:
        """The state dict without the base's own weights."""
        state = self.state_dict()
        return {name: state[name] for name in sorted(self.trained_names)}

    def prompt_state(self) -> dict[str, Tensor]:
        """Text embeddings of the prompt by the name of the base's argument."""
        return {name: getattr(self, f"prompt_{name}") for name in self.prompt_names}

    def predict_clean(
        self, noisy: Tensor, times: Tensor, tokens: Tensor, structure: Tensor | None = None
    ) -> Tensor:
        """x̂ in the shape of `noisy` (batch, channels, rows, columns), at `times` (batch,).

        All but the base itself is computed in float32: where little is left of the image, x̂ magnifies
        what is rounded off.
        """
        times = times.double()
        inputs, timesteps = self.path.inputs(noisy.float(), times)
        latents = cast_like(inputs, self.structure_in.weight)
        if structure is not None and not self.alone:
            latents = latents + self.structure_in(cast_like(structure, latents))
        predicted = self._run_base(latents, timesteps, tokens)
        return self.path.clean(predicted.float(), inputs, times)

    def loss_weight(self, times: Tensor) -> Tensor:
        return self.path.loss_weight(times)

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Context in which the base predicts alone: adapters, LoRA and structure input have scale 0."""
        layers = [layer for layer in self.base.modules() if isinstance(layer, LoraLayer)]
        scales = [dict(layer.scaling) for layer in layers]
        self.alone = True
        for layer in layers:
            layer.scaling = dict.fromkeys(layer.scaling, 0.0)
        try:
            yield
        finally:
            self.alone = False
            for layer, scale in zip(layers, scales, strict=True):
                layer.scaling = scale

    def _run_base(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        number, _, rows, columns = latents.shape
        prompt = {
            name: value.expand(number, *value.shape[1:])
            for name, value in self.prompt_state().items()
        }
        size = rows * self.pixels_per_position, columns * self.pixels_per_position
        tokens_or_none = None if self.alone else tokens
        inputs = BaseInputs(latents, timesteps, prompt, tokens_or_none, size, self.guidance)
        return self.family.predict(self.base, inputs)


def adapt(
    pipeline: DiffusionPipeline,
    prompt: Mapping[str, Tensor],
    token_width: int,
    lora: LoraConfig,
    guidance: float = 3.5,
) -> AdaptedDenoiser:
    """Builds a denoiser from the base of a pipeline, with untrained adapters; `prompt` as
    `prompt_embeddings` gives it."""
    return AdaptedDenoiser(
        denoising_network(pipeline),
        family_of(pipeline),
        base_path(pipeline.scheduler),
        prompt,
        token_width,
        lora,
        pixels_per_position=downsampling_factor(pipeline.vae.config),
        guidance=guidance,
    )


def adapt_to_text(
    pipeline: DiffusionPipeline,
    text: str,
    token_width: int,
    lora: LoraConfig,
    guidance: float = 3.5,
) -> AdaptedDenoiser:
    """As `adapt`, for a text prompt."""
    return adapt(pipeline, prompt_embeddings(pipeline, text), token_width, lora, guidance)


def save_adapter(
    folder: Path, conditioner: Conditioner, denoiser: AdaptedDenoiser, base: Mapping[str, object]
) -> None:
    """Writes the trained weights, the prompt's text embeddings, and `base`: the arguments from which
    `load_adapter` builds the rest. The base's own weights are not copied."""
    conditioner.save_pretrained(folder / CONDITIONER)
    for file, state in (
        (ADAPTER_FILE, denoiser.adapter_state()),
        (PROMPT_FILE, denoiser.prompt_state()),
    ):
        save_file({name: value.contiguous() for name, value in state.items()}, folder / file)
    (folder / BASE_FILE).write_text(json.dumps(base, indent=2))


def load_adapter(
    folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[Conditioner, AdaptedDenoiser, VaeCodec]:
    """Loads what `save_adapter` wrote, on its base, whose weights are read as `dtype`; VitrineError if the
    base cannot be loaded or differs."""
    base = json.loads((folder / BASE_FILE).read_text())
    pipeline = load_base(base["model"], dtype, with_text=False)
    buckets = [(height, width) for height, width in base["resolution_buckets"]]
    conditioner = Conditioner.from_pretrained(folder / CONDITIONER)
    assert isinstance(conditioner, Conditioner)
    denoiser = adapt(
        pipeline,
        load_file(folder / PROMPT_FILE),
        int(conditioner.config["token_width"]),
        LoraConfig(**base["lora"]),
        float(base["guidance"]),
    )
    state = load_file(folder / ADAPTER_FILE)
    expected = denoiser.adapter_state()
    differing = {
        name for name in expected.keys() & state if expected[name].shape != state[name].shape
    }
    differing |= expected.keys() ^ state.keys()
    if differing:
        raise VitrineError(
            f"{folder} was trained on another model than {base['model']!r} is now: they differ in "
            f"{sorted(differing)[0]} and {len(differing) - 1} others; name the one it was trained on."
        )
    denoiser.load_state_dict(state, strict=False)
    return conditioner.eval(), denoiser.eval(), VaeCodec(pipeline.vae, buckets)
