"""Tiny diffusion pipelines of each family, built from configs with random weights and saved as folders."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import PixArtAlphaPipeline
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import PixArtSigmaPipeline
from diffusers.pipelines.sana.pipeline_sana import SanaPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = ("<pad>", "<eos>", "<bos>", "a", "product", "photo")
LENGTH, WIDTH = 8, 16
"""Tokens of a prompt, and width of text states."""
UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
PIXART: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": WIDTH,
    "caption_channels": WIDTH,
    "patch_size": 2,
}


def sd15() -> Any:
    return _stable_diffusion("epsilon")


def sd21() -> Any:
    return _stable_diffusion("v_prediction")


def sdxl() -> Any:
    unet = UNet2DConditionModel(
        **UNET,
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=ddim("epsilon"),
    )


def pixart_alpha() -> Any:
    """With the conditions of the variant of 1024 pixels."""
    # Height, width and aspect ratio are embedded in a third of the width each.
    width = {"num_attention_heads": 3, "cross_attention_dim": 24}
    network = PixArtTransformer2DModel(
        **{**PIXART, **width}, sample_size=128, use_additional_conditions=True
    )
    return _pixart(PixArtAlphaPipeline, network)


def pixart_sigma() -> Any:
    network = PixArtTransformer2DModel(**PIXART, sample_size=16, use_additional_conditions=False)
    return _pixart(PixArtSigmaPipeline, network)


def sd3() -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=clip(projected=True),
        tokenizer=tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(2 * WIDTH),
        tokenizer_3=tokenizer(),
    )


def flux() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder(shift_factor=0.1159, scaling_factor=0.3611),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        text_encoder_2=t5(WIDTH),
        tokenizer_2=tokenizer(),
        transformer=transformer,
    )


def sana() -> Any:
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=8,
        patch_size=1,
    )
    text = Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.41407,
    )
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return SanaPipeline(
        tokenizer=tokenizer(),
        text_encoder=Gemma2Model(text),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "sd15": sd15,
    "sd21": sd21,
    "sdxl": sdxl,
    "pixart_alpha": pixart_alpha,
    "pixart_sigma": pixart_sigma,
    "sd3": sd3,
    "flux": flux,
    "sana": sana,
}
"""Name → function that builds the tiny pipeline."""


def save_pipeline(name: str, folder: Path) -> Path:
    """Builds the tiny pipeline `name` with random weights and saves it, as a pipeline is published."""
    torch.manual_seed(zlib.crc32(name.encode()))
    pipeline = PIPELINES[name]()
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            _scatter(component)
    pipeline.save_pretrained(folder)
    return folder


@torch.no_grad()
def _scatter(network: torch.nn.Module) -> None:
    """Moves all weights a little: some start at zero, and hide what depends on them."""
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))


def tokenizer() -> Any:
    inner = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
        model_max_length=LENGTH,
    )  # fmt: skip


def autoencoder(**settings: Any) -> AutoencoderKL:
    build: Any = AutoencoderKL  # annotated for one block alone
    return build(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        **settings,
    )  # fmt: skip


def ddim(prediction: Any) -> Any:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1,
        prediction_type=prediction,
    )  # fmt: skip


def clip(projected: bool = False) -> Any:
    config = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_attention_heads=2, num_hidden_layers=2,
        vocab_size=len(WORDS), max_position_embeddings=LENGTH, eos_token_id=1, bos_token_id=2,
        pad_token_id=0, projection_dim=WIDTH,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(WORDS),
            d_model=width,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            pad_token_id=0,
        )
    )  # fmt: skip


def _stable_diffusion(prediction: str) -> Any:
    build: Any = StableDiffusionPipeline  # annotated as if no part might be missing
    return build(
        vae=autoencoder(scaling_factor=0.18215),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(**UNET, cross_attention_dim=WIDTH),
        scheduler=ddim(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart(kind: Any, network: PixArtTransformer2DModel) -> Any:
    return kind(
        tokenizer=tokenizer(),
        text_encoder=t5(WIDTH),
        vae=autoencoder(scaling_factor=0.13025),
        transformer=network,
        scheduler=ddim("epsilon"),
    )
