"""Pretrained diffusion pipelines as frozen bases: loading, text prompt, and what their networks require."""

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from torch import Tensor

from catalog.errors import VitrineError
from generate.image.resolution_buckets import ImageSize
from generate.image.vae import downsampling_factor
from pretrain.artifact import without_bars
from pretrain.hub import one_line_errors

DenoisingNetwork = UNet2DConditionModel | PixArtTransformer2DModel


def load_base(model: str) -> DiffusionPipeline:
    """A pretrained diffusion pipeline, by its name on the hub or its folder."""
    remedy = (
        "give a diffusion pipeline of the Hugging Face hub (Stable Diffusion 1.5, 2, XL; PixArt), or its "
        "folder"
    )
    with one_line_errors(f"model {model!r} cannot be loaded", remedy), without_bars(logging):
        components = DiffusionPipeline.load_config(model)
        # Images are checked by `safety_model` (generate/image/safety.py).
        unchecked = {"safety_checker": None, "requires_safety_checker": False}
        overrides = unchecked if "safety_checker" in components else {}
        return DiffusionPipeline.from_pretrained(model, **overrides)


def prompt_embeddings(pipeline: DiffusionPipeline, text: str, size: ImageSize) -> dict[str, Tensor]:
    """The text prompt as keyword arguments of the base's network, of batch 1."""
    encode = pipeline.encode_prompt
    with torch.no_grad():
        if hasattr(pipeline, "transformer"):
            states, mask, *_ = encode(text, do_classifier_free_guidance=False)
            return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
        if getattr(pipeline, "text_encoder_2", None) is not None:
            states, _, pooled, _ = encode(text, do_classifier_free_guidance=False)
            sizes = torch.tensor([[*size, 0, 0, *size]], dtype=states.dtype)
            named = {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": sizes}
            return {name: value.clone() for name, value in named.items()}
        states, *_ = encode(text, pipeline.device, 1, False)
        return {"encoder_hidden_states": states}


def side_multiple(pipeline: DiffusionPipeline) -> int:
    """Pixels that each side of the base's images must be a multiple of."""
    config = denoising_network(pipeline).config
    blocks = config.get("block_out_channels")
    halvings = 2 ** (len(blocks) - 1) if blocks else int(config["patch_size"])
    return downsampling_factor(pipeline.vae) * halvings


def denoising_network(pipeline: DiffusionPipeline) -> DenoisingNetwork:
    """The UNet or transformer of the pipeline; VitrineError for a pipeline without one, or without a VAE."""
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if network is None or not hasattr(pipeline, "vae"):
        raise VitrineError(
            f"{type(pipeline).__name__} has no UNet or transformer over an autoencoder's latents; give one "
            "of the Stable Diffusion family, or PixArt."
        )
    return network
