"""IP-Adapter: a frozen pretrained diffusion model, conditioned on item and user by adapters.

Each cross-attention of the base gets a second one over the condition tokens of item and user (decoupled
cross-attention: Ye et al. 2023, IP-Adapter), whose output is initialized to zero; LoRA updates the
attention matrices. The base's noisy latents, alpha x + sigma ε with alpha² + sigma² = 1, equal those of
flow matching up to a scale: x_t = z / (alpha + sigma) at t = sigma / (alpha + sigma). So solvers, guidance
and the training loop apply unchanged.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from peft import LoraConfig as PeftLora
from peft import inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.image.denoiser import Conditioner
from generate.image.pretrained_base import (
    DenoisingNetwork,
    denoising_network,
    load_base,
    prompt_embeddings,
)
from generate.image.resolution_buckets import ImageSize
from generate.image.structure import CHANNELS
from generate.image.vae import VaeCodec

BASE_FILE, ADAPTER_FILE, CONDITIONER = "base.json", "adapter.safetensors", "conditioner"
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
"""Matrices of the base's attention that LoRA updates."""
MIN_TIME = 0.002
"""Smaller times are clamped to it: the base was not trained at lower noise."""


class DecoupledCrossAttention(nn.Module):
    """Cross-attention over condition tokens, with the queries of one cross-attention of the base."""

    def __init__(self, attention: Attention, token_width: int) -> None:
        super().__init__()
        inner, width = attention.inner_dim, attention.query_dim
        self.heads = attention.heads
        self.to_k = nn.Linear(token_width, inner, bias=False)
        self.to_v = nn.Linear(token_width, inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(batch, positions, inner), (batch, tokens, token_width) → (batch, positions, width)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (queries, self.to_k(tokens), self.to_v(tokens))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AdaptedDenoiser(nn.Module):
    """Predicts clean latents with a frozen base: a UNet of the Stable Diffusion family, or PixArt."""

    ratios: Tensor
    """(timesteps,): flow-matching time of each timestep of the base."""

    def __init__(
        self,
        base: DenoisingNetwork,
        scheduler: ConfigMixin,
        prompt: Mapping[str, Tensor],
        token_width: int,
        lora: LoraConfig,
    ) -> None:
        """`scheduler` defines the base's noise schedule; `prompt`: keyword arguments of the base of batch 1,
        the same for every image."""
        super().__init__()
        self.base: DenoisingNetwork = base.requires_grad_(False)
        if lora.rank:
            updates = PeftLora(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=LORA_TARGETS,
            )
            inject_adapter_in_model(updates, base)
        attentions = [
            module
            for name, module in base.named_modules()
            if isinstance(module, Attention) and name.endswith("attn2")
        ]
        self.adapters = nn.ModuleList(
            [DecoupledCrossAttention(attention, token_width) for attention in attentions]
        )
        self.structure_in = nn.Conv2d(CHANNELS, self.channels, 1, bias=False)
        nn.init.zeros_(self.structure_in.weight)
        for attention, adapter in zip(attentions, self.adapters, strict=True):
            attention.register_forward_hook(self._add_output_of(adapter), with_kwargs=True)
        self.tokens: Tensor | None = None
        self.prediction_type = str(scheduler.config["prediction_type"])
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise VitrineError(
                f"the model predicts {self.prediction_type}; give one that predicts epsilon, v_prediction "
                "or sample (Stable Diffusion 1.5, 2, XL; PixArt)."
            )
        alphas = scheduler.alphas_cumprod.double()
        self.register_buffer("ratios", (1 - alphas).sqrt() / (alphas.sqrt() + (1 - alphas).sqrt()))
        self.prompt_names = sorted(prompt)
        for name in self.prompt_names:
            self.register_buffer(f"prompt_{name}", prompt[name])

    @property
    def device(self) -> torch.device:
        return self.ratios.device

    @property
    def latest_time(self) -> float:
        """The time of the greatest noise that the base was trained at.

        At most 1 − MIN_TIME: with zero terminal SNR, x̂ from a predicted noise would be divided by 0.
        """
        return min(float(self.ratios[-1]), 1 - MIN_TIME)

    @property
    def channels(self) -> int:
        return int(self.base.config["in_channels"])

    def adapter_state(self) -> dict[str, Tensor]:
        """The state dict without the base's own weights."""
        return {
            name: value
            for name, value in self.state_dict().items()
            if name.startswith(("adapters.", "structure_in.")) or "lora_" in name
        }

    def predict_clean(
        self, noisy: Tensor, times: Tensor, tokens: Tensor, structure: Tensor | None = None
    ) -> Tensor:
        """x̂ in the shape of `noisy` (batch, channels, rows, columns), at `times` (batch,)."""
        times = times.double().clamp(MIN_TIME, self.latest_time)
        scale = ((1 - times) ** 2 + times**2).rsqrt()
        alpha, sigma = ((part * scale).to(noisy.dtype) for part in (1 - times, times))
        alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
        scaled = noisy * scale.to(noisy.dtype)[:, None, None, None]
        inputs = scaled if structure is None else scaled + self.structure_in(structure)
        predicted = self._run_base(inputs, self._timesteps(times), tokens)
        if self.prediction_type == "epsilon":
            return (scaled - sigma * predicted) / alpha
        if self.prediction_type == "v_prediction":
            return alpha * scaled - sigma * predicted
        return predicted

    def loss_weight(self, times: Tensor) -> Tensor:
        """(batch,): the factor that turns the squared error of x̂ at `times` into that of what the base
        predicts."""
        if self.prediction_type == "sample":
            return torch.ones_like(times)
        times = times.clamp(MIN_TIME, self.latest_time)
        weight = ((1 - times) / times).square()
        return weight if self.prediction_type == "epsilon" else weight + 1

    def _timesteps(self, times: Tensor) -> Tensor:
        """The base's own timesteps, 0 … 999, interpolated."""
        ratios = self.ratios.cpu().numpy()
        timesteps = np.interp(times.cpu().numpy(), ratios, np.arange(len(ratios)))
        return torch.from_numpy(timesteps).to(times.device, torch.float32)

    def _run_base(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        number = len(latents)
        prompt = {name: getattr(self, f"prompt_{name}") for name in self.prompt_names}
        inputs: dict[str, object] = {
            name: value.expand(number, *value.shape[1:]) for name, value in prompt.items()
        }
        added = {name: inputs.pop(name) for name in ("text_embeds", "time_ids") if name in inputs}
        if added or hasattr(self.base, "adaln_single"):
            inputs["added_cond_kwargs"] = added or {"resolution": None, "aspect_ratio": None}
        with self._condition_on(tokens):
            predicted = self.base(latents, timestep=timesteps, return_dict=False, **inputs)[0]
        return predicted[:, : self.channels]  # PixArt's second half is a variance

    @contextmanager
    def _condition_on(self, tokens: Tensor) -> Iterator[None]:
        self.tokens = tokens
        try:
            yield
        finally:
            self.tokens = None

    def _add_output_of(self, adapter: nn.Module) -> Callable[..., Tensor]:
        """A forward hook of a cross-attention that adds the adapter's output."""

        def hook(
            attention: Attention,
            inputs: tuple[Tensor, ...],
            named: dict[str, Tensor],
            output: Tensor,
        ) -> Tensor:
            assert self.tokens is not None
            hidden = inputs[0] if inputs else named["hidden_states"]
            return output + adapter(attention.to_q(hidden), self.tokens)

        return hook


def adapt(
    pipeline: DiffusionPipeline, prompt: str, size: ImageSize, token_width: int, lora: LoraConfig
) -> AdaptedDenoiser:
    """Builds a denoiser from the base of a pipeline, with untrained adapters."""
    embeddings = prompt_embeddings(pipeline, prompt, size)
    network = denoising_network(pipeline)
    return AdaptedDenoiser(network, pipeline.scheduler, embeddings, token_width, lora)


def save_adapter(
    folder: Path, conditioner: Conditioner, denoiser: AdaptedDenoiser, base: Mapping[str, object]
) -> None:
    """Writes the trained weights, and `base`: the arguments from which `load_adapter` builds the rest. The
    base's own weights are not copied."""
    conditioner.save_pretrained(folder / CONDITIONER)
    state = {name: value.contiguous() for name, value in denoiser.adapter_state().items()}
    save_file(state, folder / ADAPTER_FILE)
    (folder / BASE_FILE).write_text(json.dumps(base, indent=2))


def load_adapter(folder: Path) -> tuple[Conditioner, AdaptedDenoiser, VaeCodec]:
    """Loads what `save_adapter` wrote, on its base; VitrineError if the base cannot be loaded or differs."""
    base = json.loads((folder / BASE_FILE).read_text())
    pipeline = load_base(base["model"])
    buckets = [(height, width) for height, width in base["resolution_buckets"]]
    conditioner = Conditioner.from_pretrained(folder / CONDITIONER)
    assert isinstance(conditioner, Conditioner)
    denoiser = adapt(
        pipeline,
        base["prompt"],
        buckets[0],
        int(conditioner.config["token_width"]),
        LoraConfig(**base["lora"]),
    )
    state = load_file(folder / ADAPTER_FILE)
    differing = denoiser.adapter_state().keys() ^ state.keys()
    if differing:
        raise VitrineError(
            f"{folder} was trained on another model than {base['model']!r} is now: they differ in "
            f"{sorted(differing)[0]} and {len(differing) - 1} others; name the one it was trained on."
        )
    denoiser.load_state_dict(state, strict=False)
    return conditioner.eval(), denoiser.eval(), VaeCodec(pipeline.vae, buckets)
