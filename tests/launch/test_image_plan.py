"""The memory plan of an image generator's training: of its own denoiser, and on a base without weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.diffusion_configs import write_configs
from benchmarks.untrained_pipelines import save_pipeline
from catalog.splits import load_split
from finetune.config import LoraConfig
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig
from launch.cli import main
from launch.memory_plan.build import build_stage
from launch.memory_plan.fake_tensors import FakeTensorMeter
from launch.memory_plan.footprint import detach_from_trainer, footprint
from launch.memory_plan.image_stage import build_image_denoiser
from launch.memory_plan.plan import make_memory_plan
from pretrain.config import TrainerConfig
from tests.stages import small_recommender, write_settings


@pytest.fixture(scope="module")
def config(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageConfig:
    folder = tmp_path_factory.mktemp("plan")
    finetuning = small_recommender(demo_world, folder)
    return ImageConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        lora=LoraConfig(rank=2),
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, progress=False),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline's folder without its weights."""
    folder = save_pipeline("pixart_alpha", tmp_path_factory.mktemp("base") / "pixart")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return folder


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_hollow_step_takes_what_a_real_one_takes(
    config: ImageConfig, base: Path, pretrained: bool
) -> None:
    config = replace(config, model=str(base)) if pretrained else config
    catalog, split = load_split(config.catalog, config.split)
    found = footprint(config, catalog, split, steps=1)
    with FakeTensorMeter(hollow=False) as mode:
        built = build_stage(config, catalog, split)
        mode.name(built.module.parameters(), "weights")
        mode.name(built.module.buffers(), "buffers")
        mode.follow(built.module.parameters())
        detach_from_trainer(built.module.train())  # pyright: ignore[reportArgumentType]
        batch = built.batch(0)
        mode.begin()
        loss = built.module.training_step(batch, 0)
        forward = mode.peak_activations
        mode.begin()
        loss.backward()  # pyright: ignore
    trained = [weight for weight in built.module.parameters() if weight.requires_grad]
    assert found.trained == sum(weight.numel() for weight in trained)
    assert found.parameters == sum(weight.numel() for weight in built.module.parameters())
    gradients = sum(max(64, weight.grad.nbytes) for weight in trained if weight.grad is not None)
    assert found.gradients == gradients
    assert found.activations == pytest.approx(max(forward, mode.peak_activations), rel=0.05)


def test_the_plan_has_no_strategy_that_shards_the_ema(config: ImageConfig, base: Path) -> None:
    config = replace(config, model=str(base), trainer=replace(config.trainer, devices=4))
    plan = make_memory_plan(config, "h100", Path("runs/plan"))
    assert plan.stage == "train-image"
    assert not plan.problems
    assert plan.recommended == "ddp"
    assert {share.strategy for share in plan.sharded} >= {"ddp", "zero2"}
    assert not any(share.strategy.startswith("zero3") for share in plan.sharded)


def test_what_a_base_cannot_do_is_one_line_of_the_plan(
    config: ImageConfig, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, changes, match in (
        (str(tmp_path / "nothing"), {}, "cannot be loaded"),
        (str(base), {"image_size": 34}, "image_size 34 is not a multiple of the sides"),
    ):
        wrong = replace(config, model=model, **changes)
        (problem,) = make_memory_plan(wrong, "h100", tmp_path).problems
        assert match in problem.message
        assert "\n" not in problem.message
    folder = write_configs("sd15", tmp_path / "sd15")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "KolorsPipeline"}))
    file = write_settings(replace(config, model=str(folder)), tmp_path / "image.yaml")
    assert main(["launch", "plan", "train-image", "--config", str(file)]) == 2
    assert "KolorsPipeline is not known; give one of StableDiffusion" in capsys.readouterr().out
    assert main(["launch", "simulate", "train-image", "--config", str(file)]) == 2
    assert "no stage 'train-image' can be simulated" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sdxl", "pixart_alpha", "sd3", "flux", "sana"])
def test_adapters_are_small_beside_a_published_base(name: str, tmp_path: Path) -> None:
    model = write_configs(name, tmp_path / name)
    with torch.device("meta"):
        denoiser = build_image_denoiser(ImageConfig(model=str(model)))
    sizes = {key: weight.numel() for key, weight in denoiser.named_parameters()}
    trained = sum(sizes[key] for key in denoiser.trained_names)  # type: ignore[union-attr]
    assert 0 < trained <= 0.05 * (sum(sizes.values()) - trained)
