"""Adapters on a frozen pretrained pipeline: tiny ones of every family, made from configs, loaded by path."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from benchmarks.untrained_pipelines import PIPELINES, save_pipeline
from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.image.base_families import BaseInputs, find_family
from generate.image.base_placement import check_memory_settings, place_networks
from generate.image.config import DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.ip_adapter import AdaptedDenoiser, adapt_to_text, load_adapter
from generate.image.loading import load_image_sampler
from generate.image.pretrained_base import (
    check_sides,
    denoising_network,
    describe_base,
    load_base,
    prompt_embeddings,
)
from generate.image.run import run_image_generator
from generate.image.vae import VaeCodec
from launch.trainer import build_trainer
from pretrain.config import OptimizerConfig, TrainerConfig
from pretrain.devices import Compute, on_cpu
from tests.stages import small_recommender

FRAME = (32, 32)
WIDTH = 16
PROMPT = "a product photo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module", params=PIPELINES)
def base(request: pytest.FixtureRequest, folder: Path) -> Path:
    return saved(folder, request.param)


def saved(folder: Path, name: str) -> Path:
    """The tiny pipeline of this name, built at the first request."""
    return folder / name if (folder / name).exists() else save_pipeline(name, folder / name)


def new(base: Path, rank: int = 2) -> AdaptedDenoiser:
    torch.manual_seed(1)
    lora = LoraConfig(rank=rank, alpha=2 * rank)
    return adapt_to_text(load_base(str(base)), PROMPT, WIDTH, lora).eval()


def inputs_of(denoiser: AdaptedDenoiser, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, times and tokens."""
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(3, denoiser.channels, 16, 16, generator=generator)
    return noisy, torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 5, WIDTH, generator=generator)


def shake(denoiser: AdaptedDenoiser) -> None:
    """Random weights for everything that is trained."""
    for name, weight in denoiser.named_parameters():
        if name in denoiser.trained_names:
            torch.nn.init.normal_(weight, std=0.3)


@torch.no_grad()
def test_untrained_adapters_leave_the_prediction_of_the_base(base: Path) -> None:
    denoiser, pipeline = new(base), load_base(str(base))
    noisy, times, tokens = inputs_of(denoiser)
    found = denoiser.predict_clean(noisy, times, tokens, torch.rand(3, 32, 16, 16))
    latents, timesteps = denoiser.path.inputs(noisy, times.double())
    prompt = prompt_embeddings(pipeline, PROMPT)
    expanded = {name: value.expand(3, *value.shape[1:]) for name, value in prompt.items()}
    pixels = 16 * denoiser.pixels_per_position
    call = BaseInputs(latents, timesteps, expanded, None, (pixels, pixels), denoiser.guidance)
    with plain_attention(denoiser.family):
        network = denoising_network(pipeline)
        predicted = denoiser.family.predict(network, call)
    assert torch.equal(found, denoiser.path.clean(predicted, latents, times.double()))


@contextmanager
def plain_attention(family: Any) -> Iterator[None]:
    """UNets without IP-Adapter processors take text states alone, not a pair."""
    if family.component != "unet":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        whole = UNet2DConditionModel.forward

        def alone(self: Any, *args: Any, encoder_hidden_states: Any, **named: Any) -> Any:
            return whole(self, *args, encoder_hidden_states=encoder_hidden_states[0], **named)

        patch.setattr(UNet2DConditionModel, "forward", alone)
        yield


def test_trained_adapters_at_scale_0_are_the_base_to_the_bit(base: Path) -> None:
    denoiser = new(base)
    noisy, times, tokens = inputs_of(denoiser)
    outline = torch.rand(3, 32, 16, 16)
    with torch.no_grad():
        before = denoiser.predict_clean(noisy, times, tokens, outline)
        shake(denoiser)
        trained = denoiser.predict_clean(noisy, times, tokens, outline)
        with denoiser.without_adapters():
            alone = denoiser.predict_clean(noisy, times, tokens, outline)
        again = denoiser.predict_clean(noisy, times, tokens, outline)
    assert torch.equal(alone, before)
    assert not torch.allclose(trained, before, atol=1e-3)
    assert torch.equal(again, trained)


def test_only_the_adapters_are_trained_and_attend_to_the_tokens(base: Path) -> None:
    denoiser = new(base)
    trained = {name for name, weight in denoiser.named_parameters() if weight.requires_grad}
    assert trained == set(denoiser.adapter_state())
    assert any("lora_" in name for name in trained)
    assert any("_ip" in name or "ip_adapter" in name for name in trained)
    noisy, times, one = inputs_of(denoiser)
    other = one.flip(0)
    with torch.no_grad():
        assert torch.equal(
            denoiser.predict_clean(noisy, times, one), denoiser.predict_clean(noisy, times, other)
        )
        shake(denoiser)
        heard = denoiser.predict_clean(noisy, times, one)
        assert not torch.allclose(heard, denoiser.predict_clean(noisy, times, other), atol=1e-3)
        swapped = denoiser.predict_clean(noisy.flip(0), times.flip(0), one.flip(0)).flip(0)
        torch.testing.assert_close(swapped, heard, rtol=1e-3, atol=1e-3)
    outline = torch.rand(3, 32, 16, 16)
    denoiser.predict_clean(noisy, times, one, outline).square().mean().backward()
    silent = {name for name, weight in denoiser.named_parameters() if weight.grad is None}
    assert not silent & trained


def test_every_condition_of_a_base_is_read(base: Path) -> None:
    """Time, prompt, size and guidance change what the base predicts, where it takes them."""
    denoiser = new(base)
    noisy, times, tokens = inputs_of(denoiser)

    def predicted() -> Tensor:
        with torch.no_grad():
            latents, timesteps = denoiser.path.inputs(noisy, times.double())
            return denoiser._run_base(latents, timesteps, tokens)

    first = predicted()
    for name, value in denoiser.prompt_state().items():
        if not value.is_floating_point():
            continue
        setattr(denoiser, f"prompt_{name}", value + torch.randn(value.shape))
        assert not torch.equal(predicted(), first), name
        setattr(denoiser, f"prompt_{name}", value)
    assert torch.equal(predicted(), first)
    denoiser.guidance += 5
    assert torch.equal(predicted(), first) is (base.name != "flux")
    denoiser.guidance -= 5
    denoiser.pixels_per_position *= 16
    assert torch.equal(predicted(), first) is (base.name not in ("sdxl", "pixart_alpha"))


def test_half_precision_predicts_about_the_same(base: Path) -> None:
    denoiser = new(base)
    shake(denoiser)
    noisy, times, tokens = inputs_of(denoiser)
    with torch.no_grad():
        full = denoiser.predict_clean(noisy, times, tokens)
        Compute(torch.device("cpu"), "bf16-true").place(denoiser)
        half = denoiser.predict_clean(noisy, times, tokens.bfloat16())
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() <= 0.1 * full.abs().mean()
    loaded = load_base(str(base), torch.bfloat16, with_text=False)
    assert denoising_network(loaded).dtype == torch.bfloat16
    assert loaded.vae.dtype == torch.float32


def test_lora_has_the_configured_dropout(base: Path) -> None:
    lora = LoraConfig(rank=2, alpha=4, dropout=0.25)
    denoiser = adapt_to_text(load_base(str(base)), PROMPT, WIDTH, lora)
    layers = [part for part in denoiser.modules() if isinstance(part, LoraLayer)]
    assert layers
    assert all(layer.lora_dropout["default"].p == 0.25 for layer in layers)


def test_latents_are_scaled_as_the_pipelines_own(base: Path) -> None:
    pipeline = load_base(str(base), with_text=False)
    codec, settings = VaeCodec(pipeline.vae, [FRAME]), pipeline.vae.config
    images = torch.randint(0, 256, (2, *FRAME, 3), dtype=torch.uint8)
    encoded = pipeline.vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1, return_dict=False)[0]
    raw = (encoded if isinstance(encoded, Tensor) else encoded.mean).detach()
    shift = settings.get("shift_factor") or 0.0
    latents = codec.encode(images)
    torch.testing.assert_close(latents, (raw - shift) * settings["scaling_factor"])
    assert latents.shape == (2, codec.config["channels"], *codec.latent_grid(FRAME))
    whole = codec.decode(latents)
    codec.save_memory(slicing=True, tiling=False)
    assert pipeline.vae.use_slicing
    assert (codec.decode(latents).int() - whole.int()).abs().max() <= 1
    codec.save_memory(slicing=False, tiling=True)
    assert pipeline.vae.use_tiling


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_an_offloaded_base_predicts_the_same(base: Path, offload: Any) -> None:
    """With the CPU in place of a GPU: accelerate moves the weights in and out all the same."""
    denoiser = new(base)
    shake(denoiser)
    codec = VaeCodec(load_base(str(base), with_text=False).vae, [FRAME])
    noisy, times, tokens = inputs_of(denoiser)
    with torch.no_grad():
        before = denoiser.predict_clean(noisy, times, tokens, torch.ones(3, 32, 16, 16))
        image = codec.decode(before)
        for how in (offload, "none"):
            place_networks(denoiser, codec, on_cpu(), how)
            on_meta = {weight.device.type for weight in denoiser.base.parameters()} == {"meta"}
            assert on_meta is (how == "sequential")
            after = denoiser.predict_clean(noisy, times, tokens, torch.ones(3, 32, 16, 16))
            assert torch.equal(before, after)
            assert torch.equal(image, codec.decode(after))


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_the_stage_saves_only_the_adapter_of_a_base(
    name: str, folder: Path, demo_world: Path, tmp_path: Path
) -> None:
    base = saved(folder, name)
    config = stage_config(base, demo_world, tmp_path)
    made = run_image_generator(config, tmp_path / "image", build_trainer)
    size = sum(file.stat().st_size for file in made.rglob("*.safetensors"))
    whole = sum(file.stat().st_size for file in base.rglob("*.safetensors"))
    assert size < whole
    _, denoiser, codec = load_adapter(made)
    assert codec.buckets == [FRAME]
    started = new(base)
    assert any(
        not torch.equal(weight, started.adapter_state()[key])
        for key, weight in denoiser.adapter_state().items()
    )
    sampler = load_image_sampler(made)
    user, item = str(sampler.catalog.user_ids[0]), sampler.catalog.items["item_id"][1]
    few = SamplingConfig(steps=2, reject_near_copies=False)
    one, other, _ = sampler.sample([(user, item), (user, item), (None, item)], few)
    assert one.size == (32, 32)
    assert not np.array_equal(np.asarray(one), np.asarray(other)), "another seed"
    (again,) = sampler.sample([(user, item)], few)
    assert np.array_equal(np.asarray(one), np.asarray(again)), "whatever else is in its batch"
    assert json.loads((made / "base.json").read_text())["model"] == str(base)
    assert open_artifact(made).manifest["metrics"]["parameters"] > 0
    with pytest.raises(VitrineError, match="offload is model, and the images are computed on the"):
        sampler.sample([(user, item)], replace(few, offload="model"))
    with pytest.raises(VitrineError, match="image_size 34 is not a multiple of"):
        run_image_generator(replace(config, image_size=34), tmp_path / "wrong", build_trainer)


def stage_config(base: Path, demo_world: Path, tmp_path: Path) -> ImageConfig:
    finetuning = small_recommender(demo_world, tmp_path)
    return ImageConfig(
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


def test_the_text_encoders_are_needed_in_training_alone(base: Path) -> None:
    pipeline = load_base(str(base), with_text=False)
    assert pipeline.text_encoder is None
    assert pipeline.tokenizer is None
    sizes = find_family(type(pipeline).__name__).prompt_shapes(denoising_network(pipeline).config)
    assert set(sizes) == set(prompt_embeddings(load_base(str(base)), PROMPT))


def test_a_base_that_cannot_be_adapted_is_an_error_of_one_line(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(VitrineError, match="cannot be loaded"):
        load_base(str(tmp_path))
    for changes, match in (
        (
            {"_class_name": "HunyuanDiTPipeline"},
            r"HunyuanDiTPipeline is not known; give one of.*Flux",
        ),
        ({"_class_name": ["mine", "My"]}, "comes with code of its own"),
        ({"vae": [None, None]}, "has no vae"),
        ({"vae": None}, "has no vae"),
    ):
        broken = copied(
            saved(folder, "sd15"), tmp_path / f"changed-{len(list(tmp_path.iterdir()))}"
        )
        change_json(broken / "model_index.json", changes)
        with pytest.raises(VitrineError, match=match) as error:
            describe_base(str(broken))
        assert "\n" not in str(error.value)
    broken = copied(saved(folder, "sd15"), tmp_path / "scheduler")
    change_json(broken / "scheduler/scheduler_config.json", {"prediction_type": "score"})
    with pytest.raises(VitrineError, match="the model predicts score"):
        load_base(str(broken))
    broken = copied(saved(folder, "sd15"), tmp_path / "inpainting")
    change_json(broken / "unet/config.json", {"in_channels": 9})
    with pytest.raises(VitrineError, match="takes latents of 9 channels, and its VAE gives 4"):
        load_base(str(broken))


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder))


def change_json(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_sides_follow_from_vae_and_network(base: Path) -> None:
    found = describe_base(str(base))
    assert found.side_multiple == 4
    check_sides(found, 64)
    if base.name == "sd3":
        with pytest.raises(VitrineError, match="image_size 68 is more than the 64 pixels"):
            check_sides(found, 68)
    else:
        check_sides(found, 4096)


def test_settings_that_save_no_memory_are_refused() -> None:
    check_memory_settings(nn.Identity(), on_cpu(), SamplingConfig())
    for config in (SamplingConfig(vae_tiling=True), SamplingConfig(offload="sequential")):
        with pytest.raises(VitrineError, match="this generator has no pretrained model"):
            check_memory_settings(nn.Identity(), on_cpu(), config)
