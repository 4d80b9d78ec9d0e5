"""Configs of published diffusion pipelines, to measure adapters and memory at full size without weights.

Each is what the named repository of the Hugging Face hub has in `unet/config.json` or
`transformer/config.json`, `vae/config.json` and `scheduler/scheduler_config.json`, as far as it differs from
diffusers' defaults.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

LEVELS = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
KL: dict[str, Any] = {**LEVELS, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PIXART: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "sample_size": 128,
    "patch_size": 2,
}


class PublishedBase(NamedTuple):
    """The configs of a pipeline."""

    source: str
    """Repository of the hub."""
    pipeline: str
    network: tuple[str, dict[str, Any]]
    """Class and config of the UNet or transformer."""
    vae: tuple[str, dict[str, Any]]
    scheduler: tuple[str, dict[str, Any]]
    image_size: int


PUBLISHED: dict[str, PublishedBase] = {
    "sd15": PublishedBase(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "StableDiffusionPipeline",
        (
            "UNet2DConditionModel",
            {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        ),
        ("AutoencoderKL", {**KL, "latent_channels": 4, "scaling_factor": 0.18215}),
        ("PNDMScheduler", {**BETAS, "skip_prk_steps": True}),
        512,
    ),
    "sdxl": PublishedBase(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "StableDiffusionXLPipeline",
        (
            "UNet2DConditionModel",
            {
                "sample_size": 128,
                "block_out_channels": [320, 640, 1280],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": [1, 2, 10],
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        ("AutoencoderKL", {**KL, "latent_channels": 4, "scaling_factor": 0.13025}),
        ("EulerDiscreteScheduler", BETAS),
        1024,
    ),
    "pixart_alpha": PublishedBase(
        "PixArt-alpha/PixArt-XL-2-1024-MS",
        "PixArtAlphaPipeline",
        ("PixArtTransformer2DModel", {**PIXART, "interpolation_scale": 2}),
        ("AutoencoderKL", {**KL, "latent_channels": 4, "scaling_factor": 0.18215}),
        ("DPMSolverMultistepScheduler", {"beta_schedule": "linear"}),
        1024,
    ),
    "pixart_sigma": PublishedBase(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArtSigmaPipeline",
        (
            "PixArtTransformer2DModel",
            {**PIXART, "interpolation_scale": 2, "use_additional_conditions": False},
        ),
        ("AutoencoderKL", {**KL, "latent_channels": 4, "scaling_factor": 0.13025}),
        ("DPMSolverMultistepScheduler", {"beta_schedule": "linear"}),
        1024,
    ),
    "sd3": PublishedBase(
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "StableDiffusion3Pipeline",
        (
            "SD3Transformer2DModel",
            {
                "sample_size": 128,
                "num_layers": 24,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 192,
                "in_channels": 16,
            },
        ),
        (
            "AutoencoderKL",
            {**KL, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        1024,
    ),
    "flux": PublishedBase(
        "black-forest-labs/FLUX.1-dev",
        "FluxPipeline",
        ("FluxTransformer2DModel", {"in_channels": 64, "guidance_embeds": True}),
        (
            "AutoencoderKL",
            {**KL, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
        1024,
    ),
    "sana": PublishedBase(
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
        "SanaPipeline",
        ("SanaTransformer2DModel", {"in_channels": 32, "num_layers": 20, "caption_channels": 2304}),
        (
            "AutoencoderDC",
            {
                "latent_channels": 32,
                "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
                "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
                "scaling_factor": 0.41407,
            },
        ),
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
        1024,
    ),
}


def write_configs(name: str, folder: Path) -> Path:
    """A folder with the configs of a published pipeline, as after a download that left out the weights."""
    base = PUBLISHED[name]
    part = "unet" if base.network[0].startswith("UNet") else "transformer"
    index: dict[str, Any] = {"_class_name": base.pipeline}
    for component, (kind, config) in (
        (part, base.network),
        ("vae", base.vae),
        ("scheduler", base.scheduler),
    ):
        index[component] = ["diffusers", kind]
        file = "scheduler_config.json" if component == "scheduler" else "config.json"
        (folder / component).mkdir(parents=True)
        (folder / component / file).write_text(json.dumps({"_class_name": kind, **config}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
