"""Adapters on a frozen pretrained pipeline: tiny ones, made from configs, loaded by path."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import PixArtAlphaPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from peft.tuners.lora import LoraLayer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.image.config import DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.ip_adapter import AdaptedDenoiser, adapt, load_adapter
from generate.image.loading import load_image_sampler
from generate.image.pretrained_base import load_base, side_multiple
from generate.image.run import run_image_generator
from generate.image.solvers import SOLVERS, time_schedule
from launch.trainer import build_trainer
from pretrain.config import OptimizerConfig, TrainerConfig
from tests.stages import small_recommender

FRAME = (32, 32)
WIDTH = 16


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<eos>": 1, "a": 2, "product": 3, "photo": 4}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", model_max_length=8
    )


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["unet", "pixart"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    if request.param == "unet":
        text = CLIPTextConfig(
            hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
            vocab_size=5, max_position_embeddings=8, eos_token_id=1, bos_token_id=1, pad_token_id=0,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            cross_attention_dim=16, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        pipeline = StableDiffusionPipeline(
            vae=autoencoder(), text_encoder=CLIPTextModel(text), tokenizer=tokenizer(), unet=unet,
            scheduler=scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # type: ignore[arg-type]  # fmt: skip
    else:
        text = T5Config(
            vocab_size=5, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0
        )
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
            cross_attention_dim=16, caption_channels=16, sample_size=16, patch_size=2,
        )  # fmt: skip
        pipeline = PixArtAlphaPipeline(
            tokenizer=tokenizer(), text_encoder=T5EncoderModel(text), vae=autoencoder(),
            transformer=transformer, scheduler=scheduler,
        )  # type: ignore[arg-type]  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def new(base: Path, rank: int = 2) -> AdaptedDenoiser:
    torch.manual_seed(1)
    lora = LoraConfig(rank=rank, alpha=2 * rank)
    return adapt(load_base(str(base)), "a product photo", FRAME, WIDTH, lora).eval()


@torch.no_grad()
def test_untrained_adapters_leave_the_prediction_of_the_base(base: Path) -> None:
    denoiser, pipeline = new(base), load_base(str(base))
    kept = pipeline.scheduler.alphas_cumprod
    clean, noise = torch.randn(3, 4, 16, 16), torch.randn(3, 4, 16, 16)
    steps = torch.tensor([40, 500, 900])
    a, s = kept[steps].sqrt(), (1 - kept[steps]).sqrt()
    mixed = a[:, None, None, None] * clean + s[:, None, None, None] * noise
    inputs = {name: getattr(denoiser, f"prompt_{name}").expand(3, *[-1] * (
        getattr(denoiser, f"prompt_{name}").ndim - 1)) for name in denoiser.prompt_names}  # fmt: skip
    if hasattr(pipeline, "transformer"):
        inputs["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    predicted = network(mixed, timestep=steps, return_dict=False, **inputs)[0][:, :4]
    expected = (mixed - s[:, None, None, None] * predicted) / a[:, None, None, None]
    times = s / (a + s)
    flow = (1 - times)[:, None, None, None] * clean + times[:, None, None, None] * noise
    tokens = torch.randn(3, 5, WIDTH)
    found = denoiser.predict_clean(flow, times, tokens, torch.zeros(3, 32, 16, 16))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    # A perfect prediction of the noise is a perfect prediction of the image.
    denoiser._run_base = lambda *_: noise  # type: ignore[method-assign]
    torch.testing.assert_close(
        denoiser.predict_clean(flow, times, tokens), clean, rtol=1e-3, atol=1e-3
    )
    weights = denoiser.loss_weight(times)
    torch.testing.assert_close(weights, (a / s) ** 2, rtol=1e-3, atol=1e-6)


def test_only_the_adapters_are_trained_and_attend_to_the_tokens(base: Path) -> None:
    denoiser = new(base)
    trained = {name for name, weight in denoiser.named_parameters() if weight.requires_grad}
    assert trained == set(denoiser.adapter_state())
    assert any("lora_" in name for name in trained)
    assert any(name.startswith("adapters.") for name in trained)
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([0.3, 0.7])
    one, other = torch.randn(2, 3, WIDTH), torch.randn(2, 3, WIDTH)
    with torch.no_grad():
        assert torch.equal(
            denoiser.predict_clean(noisy, times, one), denoiser.predict_clean(noisy, times, other)
        )
        for adapter in denoiser.adapters:
            torch.nn.init.normal_(adapter.to_out.weight, std=0.5)
        heard = denoiser.predict_clean(noisy, times, one)
        assert not torch.allclose(heard, denoiser.predict_clean(noisy, times, other), atol=1e-3)
        swapped = denoiser.predict_clean(noisy.flip(0), times.flip(0), one.flip(0)).flip(0)
        torch.testing.assert_close(swapped, heard, rtol=1e-4, atol=1e-4)
    denoiser.predict_clean(noisy, times, one).square().mean().backward()
    assert all(weight.grad is not None for name, weight in denoiser.named_parameters() if name in trained
               and "structure_in" not in name)  # fmt: skip


def test_lora_has_the_configured_dropout(base: Path) -> None:
    lora = LoraConfig(rank=2, alpha=4, dropout=0.25)
    denoiser = adapt(load_base(str(base)), "a product photo", FRAME, WIDTH, lora)
    layers = [part for part in denoiser.modules() if isinstance(part, LoraLayer)]
    assert layers
    assert all(layer.lora_dropout["default"].p == 0.25 for layer in layers)


def test_our_solver_is_ddim_of_the_base(base: Path) -> None:
    """On a base's own steps, Euler's way through the flow lands where diffusers' DDIM does."""
    denoiser, pipeline = new(base), load_base(str(base))
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(5)
    tokens = torch.zeros(2, 3, WIDTH)
    latents = noise = torch.randn(2, 4, 16, 16)
    kept = scheduler.alphas_cumprod

    def at(step: int) -> float:
        a, s = kept[step].sqrt(), (1 - kept[step]).sqrt()
        return float(s / (a + s))

    with torch.no_grad():
        for step in scheduler.timesteps:
            steps = torch.full((2,), float(step))
            predicted = denoiser._run_base(latents, steps, tokens)
            latents = scheduler.step(predicted, step, latents, return_dict=False)[0]
        times = [at(int(step)) for step in scheduler.timesteps]
        times.append(0.0)
        start = ((1 - times[0]) ** 2 + times[0] ** 2) ** 0.5
        ours = SOLVERS["ddim"](
            lambda x, t: denoiser.predict_clean(x, torch.full((2,), t), tokens),
            start * noise,
            times,
        )
    torch.testing.assert_close(ours, latents, rtol=5e-3, atol=5e-3)
    assert denoiser.latest_time == pytest.approx(time_schedule(1, start=at(999))[0])


def test_the_stage_saves_only_the_adapter_of_a_base(
    base: Path, demo_world: Path, tmp_path: Path
) -> None:
    finetuning = small_recommender(demo_world, tmp_path)
    config = ImageConfig(
        recommender=str(tmp_path / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        model=str(base),
        lora=LoraConfig(rank=2, alpha=4),
        image_size=32,
        denoiser=DenoiserConfig(width=WIDTH, user_tokens=2, item_tokens=2),
        batch_size=4,
        optimizer=OptimizerConfig(learning_rate=1e-2, ema_decay=0.9),
        trainer=TrainerConfig(max_steps=3, progress=False),
    )
    made = run_image_generator(config, tmp_path / "image", build_trainer)
    size = sum(file.stat().st_size for file in made.rglob("*.safetensors"))
    whole = sum(file.stat().st_size for file in base.rglob("*.safetensors"))
    assert size < whole
    _, denoiser, codec = load_adapter(made)
    assert codec.buckets == [FRAME]
    assert any(adapter.to_out.weight.abs().max() > 0 for adapter in denoiser.adapters)
    sampler = load_image_sampler(made)
    user, item = str(sampler.catalog.user_ids[0]), sampler.catalog.items["item_id"][1]
    few = SamplingConfig(steps=2, reject_near_copies=False)
    one, other, none = sampler.sample([(user, item), (user, item), (None, item)], few)
    assert one.size == (32, 32)
    assert not np.array_equal(np.asarray(one), np.asarray(other)), "another seed"
    (again,) = sampler.sample([(user, item)], few)
    assert np.array_equal(np.asarray(one), np.asarray(again))
    del none
    assert json.loads((made / "base.json").read_text())["model"] == str(base)
    assert open_artifact(made).manifest["metrics"]["parameters"] > 0
    with pytest.raises(VitrineError, match="image_size 34 is not a multiple of"):
        run_image_generator(replace(config, image_size=34), tmp_path / "wrong", build_trainer)


def test_a_missing_base_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="cannot be loaded"):
        load_base(str(tmp_path))


def test_the_side_multiple_follows_from_vae_and_network(base: Path) -> None:
    assert side_multiple(load_base(str(base))) == 4
