"""Families of pretrained diffusion pipelines: how each one's denoising network is called, and adapted.

A family is found by the class that a pipeline's `model_index.json` names. It says which text embeddings the
network gets and in which arguments, what else conditions it (time ids, resolution, guidance embedding,
position ids), and where the second cross-attention over item and user is added.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from catalog.errors import VitrineError
from generate.image.base_attention import (
    adapt_flux_attention,
    adapt_joint_attention,
    adapt_unet_attention,
    add_decoupled_attention,
    condition_on,
)
from generate.image.resolution_buckets import ImageSize

Prompt = Mapping[str, Tensor]
"""Text embeddings by the name of the network's argument, of batch 1."""


@dataclass(frozen=True)
class BaseInputs:
    """One call of a base."""

    latents: Tensor
    """(batch, channels, rows, columns), on the base's own noise path."""
    timesteps: Tensor
    """float32 (batch,), 0 to 1000."""
    prompt: Prompt
    """Text embeddings, expanded to the batch."""
    tokens: Tensor | None
    """(batch, tokens, token_width) of item and user; None: the base alone, without its adapters."""
    size: ImageSize
    """(height, width) in pixels of the image that the latents are of."""
    guidance: float
    """Guidance scale that a guidance-distilled base takes."""

    def rows(self, *values: float) -> Tensor:
        """float32 (batch, values), the same in each row."""
        given = torch.tensor(values, dtype=torch.float32, device=self.latents.device)
        return given.expand(len(self.latents), -1)


class BaseFamily(ABC):
    """A family of pipelines with the same kind of conditioning."""

    pipelines: tuple[str, ...]
    """Classes of diffusers, as in `model_index.json`."""
    component = "transformer"
    """Name of the denoising network among the pipeline's components."""

    @abstractmethod
    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        """The text prompt as keyword arguments of the network, of batch 1."""

    @abstractmethod
    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shapes of what `encode_prompt` returns, by the network's config."""

    @abstractmethod
    def add_adapters(self, network: Any, token_width: int) -> None:
        """Adds untrained attention over tokens of `token_width` to the network, which changes nothing yet."""

    @abstractmethod
    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        """What the network predicts, in the shape of the latents."""

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        """Channels of the latents that the network takes."""
        return int(config["in_channels"])

    def side_positions(self, config: Mapping[str, Any]) -> int:
        """Latent positions that each side must be a multiple of."""
        return int(config["patch_size"])

    def max_positions(self, config: Mapping[str, Any]) -> int | None:
        """Latent positions of a side, at most; None without a bound."""
        return None


class StableDiffusion(BaseFamily):
    """A UNet with cross-attention over the states of one text encoder."""

    pipelines = ("StableDiffusionPipeline",)
    component = "unet"

    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        states, *_ = pipeline.encode_prompt(text, pipeline.device, 1, False)
        return {"encoder_hidden_states": states}

    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"encoder_hidden_states": (1, 77, int(config["cross_attention_dim"]))}

    def add_adapters(self, network: Any, token_width: int) -> None:
        adapt_unet_attention(network, token_width)

    def side_positions(self, config: Mapping[str, Any]) -> int:
        return 2 ** (len(config["block_out_channels"]) - 1)

    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        tokens = [] if inputs.tokens is None else [inputs.tokens]
        return network(
            inputs.latents,
            timestep=inputs.timesteps,
            encoder_hidden_states=(inputs.prompt["encoder_hidden_states"], tokens),
            added_cond_kwargs=self._added(inputs),
            return_dict=False,
        )[0]

    def _added(self, inputs: BaseInputs) -> dict[str, Tensor] | None:
        return None


class StableDiffusionXL(StableDiffusion):
    """Two text encoders, a pooled embedding, and time ids: original size, crop and target size."""

    pipelines = ("StableDiffusionXLPipeline",)

    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        states, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states, "text_embeds": pooled}

    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        pooled = int(config["projection_class_embeddings_input_dim"])
        pooled -= 6 * int(config["addition_time_embed_dim"])
        return {**super().prompt_shapes(config), "text_embeds": (1, pooled)}

    def _added(self, inputs: BaseInputs) -> dict[str, Tensor]:
        time_ids = inputs.rows(*inputs.size, 0, 0, *inputs.size)
        return {"text_embeds": inputs.prompt["text_embeds"], "time_ids": time_ids}


class PixArt(BaseFamily):
    """A transformer with cross-attention over T5 states; PixArt-α of 1024 pixels also takes resolution and
    aspect ratio (Chen et al. 2023, PixArt-α)."""

    pipelines = ("PixArtAlphaPipeline",)
    prompt_length = 120
    """Tokens to which the prompt is padded."""

    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        states, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        states = (1, self.prompt_length, int(config["caption_channels"]))
        return {"encoder_hidden_states": states, "encoder_attention_mask": states[:2]}

    def add_adapters(self, network: Any, token_width: int) -> None:
        add_decoupled_attention(network, token_width)

    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            height, width = inputs.size
            added = {
                "resolution": inputs.rows(height, width),
                "aspect_ratio": inputs.rows(height / width),
            }
        with condition_on(network, inputs.tokens):
            predicted = network(
                inputs.latents,
                timestep=inputs.timesteps,
                added_cond_kwargs=added,
                return_dict=False,
                **inputs.prompt,
            )[0]
        return predicted[:, : inputs.latents.shape[1]]  # the second half is a variance


class PixArtSigma(PixArt):
    """PixArt with longer prompts (Chen et al. 2024, PixArt-Σ)."""

    pipelines = ("PixArtSigmaPipeline",)
    prompt_length = 300


class Sana(PixArt):
    """A transformer with linear attention, and cross-attention over Gemma's states (Xie et al. 2024)."""

    pipelines = ("SanaPipeline",)
    prompt_length = 300

    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        guided = {}
        if network.config["guidance_embeds"]:
            scale = network.config["guidance_embeds_scale"]
            guided = {"guidance": scale * inputs.rows(inputs.guidance)[:, 0]}
        with condition_on(network, inputs.tokens):
            return network(
                inputs.latents,
                timestep=network.config["timestep_scale"] * inputs.timesteps,
                return_dict=False,
                **inputs.prompt,
                **guided,
            )[0]


class StableDiffusion3(BaseFamily):
    """A transformer with joint attention of image and text, and a pooled embedding (Esser et al. 2024)."""

    pipelines = ("StableDiffusion3Pipeline",)

    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        states, _, pooled, _ = pipeline.encode_prompt(
            text, None, None, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        states = (1, 77 + 256, int(config["joint_attention_dim"]))
        pooled = (1, int(config["pooled_projection_dim"]))
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def max_positions(self, config: Mapping[str, Any]) -> int | None:
        return int(config["pos_embed_max_size"]) * int(config["patch_size"])

    def add_adapters(self, network: Any, token_width: int) -> None:
        adapt_joint_attention(network, token_width)

    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        joint = None
        if inputs.tokens is not None:
            embedder = network.time_text_embed
            time = embedder.time_proj(inputs.timesteps)
            time = time.to(inputs.prompt["pooled_projections"].dtype)
            joint = {
                "ip_hidden_states": inputs.tokens,
                "temb": embedder.timestep_embedder(time),
            }
        return network(
            inputs.latents,
            timestep=inputs.timesteps,
            joint_attention_kwargs=joint,
            return_dict=False,
            **inputs.prompt,
        )[0]


class Flux(BaseFamily):
    """A transformer over packed latents (2 × 2 positions a token) with rotary position ids, a pooled
    embedding, and in the distilled variant a guidance embedding."""

    pipelines = ("FluxPipeline",)

    def encode_prompt(self, pipeline: Any, text: str) -> dict[str, Tensor]:
        states, pooled, _ = pipeline.encode_prompt(text, None)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def prompt_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        states = (1, 512, int(config["joint_attention_dim"]))
        pooled = (1, int(config["pooled_projection_dim"]))
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        return int(config["in_channels"]) // 4

    def side_positions(self, config: Mapping[str, Any]) -> int:
        return 2

    def add_adapters(self, network: Any, token_width: int) -> None:
        adapt_flux_attention(network, token_width)

    def predict(self, network: Any, inputs: BaseInputs) -> Tensor:
        batch, channels, rows, columns = inputs.latents.shape
        packed = inputs.latents.reshape(batch, channels, rows // 2, 2, columns // 2, 2)
        packed = packed.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        device = packed.device
        places = torch.zeros(rows // 2, columns // 2, 3, device=device)
        places[..., 1] += torch.arange(rows // 2, device=device)[:, None]
        places[..., 2] += torch.arange(columns // 2, device=device)
        tokens = [] if inputs.tokens is None else [inputs.tokens]
        distilled = network.config["guidance_embeds"]
        predicted = network(
            packed,
            timestep=inputs.timesteps / 1000,
            guidance=inputs.rows(inputs.guidance)[:, 0] if distilled else None,
            img_ids=places.flatten(0, 1),
            txt_ids=torch.zeros(inputs.prompt["encoder_hidden_states"].shape[1], 3, device=device),
            joint_attention_kwargs={"ip_hidden_states": tokens},
            return_dict=False,
            **inputs.prompt,
        )[0]
        predicted = predicted.reshape(batch, rows // 2, columns // 2, channels, 2, 2)
        return predicted.permute(0, 3, 1, 4, 2, 5).reshape(inputs.latents.shape)


FAMILIES: tuple[BaseFamily, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    PixArt(),
    PixArtSigma(),
    Sana(),
    StableDiffusion3(),
    Flux(),
)
BY_PIPELINE: dict[str, BaseFamily] = {
    name: family for family in FAMILIES for name in family.pipelines
}


def find_family(pipeline: str) -> BaseFamily:
    """The family of a pipeline class of diffusers; VitrineError, with those known, for another."""
    if pipeline not in BY_PIPELINE:
        raise VitrineError(
            f"a base of the class {pipeline} is not known; give one of {', '.join(BY_PIPELINE)}."
        )
    return BY_PIPELINE[pipeline]
