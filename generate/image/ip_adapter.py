"""A pretrained diffusion model, frozen, that learns to listen to item and person.

Every cross-attention gets a second one beside it, over the tokens of item and person (decoupled
cross-attention: Ye et al. 2023, IP-Adapter), whose output starts at zero; low-rank updates go on the
attention's own matrices. Its way of mixing picture and noise (a, s with a² + s² = 1) is that of the rest
of the house up to a scale: x_t = z / (a + s) at t = s / (a + s). So every solver, and guidance, and the
training loop serve it as they are.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from peft import LoraConfig as PeftLora
from peft import inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.image.codec import ImageSize, ResolutionBuckets
from generate.image.denoiser import Conditioner
from generate.image.structure import CHANNELS
from pretrain.artifact import without_bars
from pretrain.hub import one_line_errors

BASE_FILE, ADAPTER_FILE, CONDITIONER = "base.json", "adapter.safetensors", "conditioner"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
"""Of the base's attentions, what low-rank updates go on."""
EARLIEST = 0.002
"""Time below which a picture counts as free of noise: the base was not trained nearer to it."""


class DecoupledCrossAttention(nn.Module):
    """Beside one cross-attention: its queries, over keys and values of other tokens."""

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
    """Guesses clean latents with a frozen base: a UNet of the Stable Diffusion family, or PixArt."""

    ratios: Tensor

    def __init__(
        self,
        base: Any,
        scheduler: Any,
        prompt: dict[str, Tensor],
        token_width: int,
        lora: LoraConfig,
    ) -> None:
        """`scheduler` says how the base mixes picture and noise, `prompt` what it is told in words, for
        every picture alike: its keyword arguments, of batch 1."""
        super().__init__()
        self.base = base.requires_grad_(False)
        if lora.rank:
            updates = PeftLora(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=ATTENTION,
            )
            inject_adapter_in_model(updates, base)
        found = [
            module
            for name, module in base.named_modules()
            if isinstance(module, Attention) and name.endswith("attn2")
        ]
        self.listeners = nn.ModuleList([DecoupledCrossAttention(one, token_width) for one in found])
        self.structure_in = nn.Conv2d(CHANNELS, base.config["in_channels"], 1, bias=False)
        nn.init.zeros_(self.structure_in.weight)
        for attention, listener in zip(found, self.listeners, strict=True):
            attention.register_forward_hook(self._hearing(listener), with_kwargs=True)
        self.tokens: Tensor | None = None
        self.predicts = str(scheduler.config["prediction_type"])
        if self.predicts not in ("epsilon", "v_prediction", "sample"):
            raise VitrineError(
                f"the model predicts {self.predicts}; give one that predicts epsilon, v_prediction or "
                "sample (Stable Diffusion 1.5, 2, XL; PixArt)."
            )
        kept = scheduler.alphas_cumprod.double()
        self.register_buffer("ratios", (1 - kept).sqrt() / (kept.sqrt() + (1 - kept).sqrt()))
        self.prompt_names = sorted(prompt)
        for name in self.prompt_names:
            self.register_buffer(f"prompt_{name}", prompt[name])

    @property
    def device(self) -> torch.device:
        return self.ratios.device

    @property
    def latest_time(self) -> float:
        """The time at which the base's noise is greatest; it was not trained beyond.

        Where nothing of the picture is left by then, what is guessed from the noise would be divided by 0.
        """
        return min(float(self.ratios[-1]), 1 - EARLIEST)

    @property
    def channels(self) -> int:
        return int(self.base.config["in_channels"])

    def learned(self) -> dict[str, Tensor]:
        """All that is not the base's own."""
        whole = self.state_dict()
        return {
            name: value
            for name, value in whole.items()
            if name.startswith(("listeners.", "structure_in.")) or "lora_" in name
        }

    def estimate(
        self, noisy: Tensor, times: Tensor, tokens: Tensor, structure: Tensor | None = None
    ) -> Tensor:
        """x̂ in the shape of `noisy` (batch, channels, rows, columns), at `times` (batch,)."""
        times = times.double().clamp(EARLIEST, self.latest_time)
        scale = ((1 - times) ** 2 + times**2).rsqrt()
        keep, spoil = ((part * scale).to(noisy.dtype) for part in (1 - times, times))
        keep, spoil = keep[:, None, None, None], spoil[:, None, None, None]
        mixed = noisy * scale.to(noisy.dtype)[:, None, None, None]
        seen = mixed if structure is None else mixed + self.structure_in(structure)
        said = self._ask(seen, self._steps(times), tokens)
        if self.predicts == "epsilon":
            return (mixed - spoil * said) / keep
        return keep * mixed - spoil * said if self.predicts == "v_prediction" else said

    def loss_weight(self, times: Tensor) -> Tensor:
        """That makes the square error of x̂ at `times` (batch,) that of what the base predicts."""
        if self.predicts == "sample":
            return torch.ones_like(times)
        times = times.clamp(EARLIEST, self.latest_time)
        weight = ((1 - times) / times).square()
        return weight if self.predicts == "epsilon" else weight + 1

    def _steps(self, times: Tensor) -> Tensor:
        """The base's own count of time, 0 … 999, with fractions."""
        known = self.ratios.cpu().numpy()
        places = np.interp(times.cpu().numpy(), known, np.arange(len(known)))
        return torch.from_numpy(places).to(times.device, torch.float32)

    def _ask(self, latents: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
        number = len(latents)
        said = {name: getattr(self, f"prompt_{name}") for name in self.prompt_names}
        told: dict[str, Any] = {
            name: value.expand(number, *value.shape[1:]) for name, value in said.items()
        }
        added = {name: told.pop(name) for name in ("text_embeds", "time_ids") if name in told}
        if added or hasattr(self.base, "adaln_single"):
            told["added_cond_kwargs"] = added or {"resolution": None, "aspect_ratio": None}
        with self._listening(tokens):
            predicted = self.base(latents, timestep=steps, return_dict=False, **told)[0]
        return predicted[:, : self.channels]  # PixArt's second half is a variance

    @contextmanager
    def _listening(self, tokens: Tensor) -> Iterator[None]:
        self.tokens = tokens
        try:
            yield
        finally:
            self.tokens = None

    def _hearing(self, listener: nn.Module) -> Any:
        def hook(
            attention: Attention, inputs: Any, named: dict[str, Any], output: Tensor
        ) -> Tensor:
            assert self.tokens is not None
            hidden = inputs[0] if inputs else named["hidden_states"]
            return output + listener(attention.to_q(hidden), self.tokens)

        return hook


class VaeCodec(ResolutionBuckets, nn.Module):
    """Pictures ↔ latents by a pretrained autoencoder."""

    def __init__(self, vae: Any, frames: list[ImageSize]) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        self.config = {
            "patch_size": shrinking_of(vae),
            "channels": int(vae.config["latent_channels"]),
            "frames": [list(frame) for frame in frames],
        }

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) → latents float32 (batch, channels, rows, columns)."""
        pixels = pictures.permute(0, 3, 1, 2).to(self.device, self.vae.dtype) / 127.5 - 1
        mean = self.vae.encode(pixels).latent_dist.mean
        shift = self.vae.config.get("shift_factor") or 0.0
        return ((mean - shift) * self.vae.config["scaling_factor"]).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, rows, columns) → uint8 (batch, height, width, 3)."""
        shift = self.vae.config.get("shift_factor") or 0.0
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config["scaling_factor"] + shift
        pixels = self.vae.decode(scaled).sample.float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def fingerprint(self) -> bytes:
        first = next(iter(self.vae.state_dict().values()))
        return json.dumps(self.config).encode() + first.float().cpu().numpy().tobytes()


def load_base(model: str) -> Any:
    """A pretrained diffusion pipeline by its name on the hub, or its folder."""
    remedy = (
        "give a diffusion pipeline of the Hugging Face hub (Stable Diffusion 1.5, 2, XL; PixArt), or its "
        "folder"
    )
    with one_line_errors(f"model {model!r} cannot be loaded", remedy), without_bars(logging):
        parts = DiffusionPipeline.load_config(model)
        # Pictures are checked by `safety_model` (generate/image/safety.py).
        unchecked = {"safety_checker": None, "requires_safety_checker": False}
        asked = unchecked if "safety_checker" in parts else {}
        return DiffusionPipeline.from_pretrained(model, **asked)


def prompt_of(pipeline: Any, text: str, frame: ImageSize) -> dict[str, Tensor]:
    """What the base is told in words: the keyword arguments of its network, of batch 1."""
    with torch.no_grad():
        if hasattr(pipeline, "transformer"):
            states, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
            return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        if getattr(pipeline, "text_encoder_2", None) is not None:
            states, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
            sizes = torch.tensor([[*frame, 0, 0, *frame]], dtype=states.dtype)
            named = {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": sizes}
            return {name: value.clone() for name, value in named.items()}
        states, *_ = pipeline.encode_prompt(text, pipeline.device, 1, False)
        return {"encoder_hidden_states": states}


def shrinking_of(vae: Any) -> int:
    """Pixels a side that one position of its latents stands for."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def side_of(pipeline: Any) -> int:
    """Pixels that a side of its pictures must be a multiple of."""
    config = network_of(pipeline).config
    blocks = config.get("block_out_channels")
    halves = 2 ** (len(blocks) - 1) if blocks else int(config["patch_size"])
    return shrinking_of(pipeline.vae) * halves


def network_of(pipeline: Any) -> Any:
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if network is None or not hasattr(pipeline, "vae"):
        raise VitrineError(
            f"{type(pipeline).__name__} has no UNet or transformer over an autoencoder's latents; give one "
            "of the Stable Diffusion family, or PixArt."
        )
    return network


def adapt(
    pipeline: Any, prompt: str, frame: ImageSize, token_width: int, lora: LoraConfig
) -> AdaptedDenoiser:
    """The base of a pipeline with adapters that have learned nothing yet."""
    told = prompt_of(pipeline, prompt, frame)
    return AdaptedDenoiser(network_of(pipeline), pipeline.scheduler, told, token_width, lora)


def save_adapted(
    folder: Path, conditioner: Conditioner, denoiser: AdaptedDenoiser, base: dict[str, Any]
) -> None:
    """Writes what was learned, and `base`: what `load_adapted` builds the rest from. Not the base's own
    weights: they stay where they are."""
    conditioner.save_pretrained(folder / CONDITIONER)
    learned = {name: value.contiguous() for name, value in denoiser.learned().items()}
    save_file(learned, folder / ADAPTER_FILE)
    (folder / BASE_FILE).write_text(json.dumps(base, indent=2))


def load_adapted(folder: Path) -> tuple[Conditioner, AdaptedDenoiser, VaeCodec]:
    """What `save_adapted` wrote, on its base; VitrineError where that cannot be loaded."""
    base = json.loads((folder / BASE_FILE).read_text())
    pipeline = load_base(base["model"])
    frames = [(height, width) for height, width in base["frames"]]
    conditioner = Conditioner.from_pretrained(folder / CONDITIONER)
    assert isinstance(conditioner, Conditioner)
    denoiser = adapt(
        pipeline,
        base["prompt"],
        frames[0],
        int(conditioner.config["token_width"]),
        LoraConfig(**base["lora"]),
    )
    learned = load_file(folder / ADAPTER_FILE)
    missing = denoiser.learned().keys() ^ learned.keys()
    if missing:
        raise VitrineError(
            f"{folder} was trained on another model than {base['model']!r} is now: they differ in "
            f"{sorted(missing)[0]} and {len(missing) - 1} others; name the one it was trained on."
        )
    denoiser.load_state_dict(learned, strict=False)
    return conditioner.eval(), denoiser.eval(), VaeCodec(pipeline.vae, frames)
