"""Whatever a stage is trained in, its artifact is there, loads, and holds float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from finetune.config import ArmConfig
from launch.cli import main
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_stages
from launch.settings import load_settings
from launch.trainer import build_trainer
from tests.stages import pretrain_small

TINY = Path(__file__).with_name("tiny.yaml")


def kinds_in(folder: Path) -> dict[str, set[str]]:
    """File → the kinds of number in it."""
    found = {}
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "np") as weights:
            kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        found[path.relative_to(folder).as_posix()] = kinds
    return found


def test_an_encoder_trained_in_half_precision_is_stored_in_float32(
    demo_world: Path, tmp_path: Path
) -> None:
    encoder = pretrain_small(demo_world, tmp_path / "encoder", 1, precision="bf16-true")
    assert set(map(frozenset, kinds_in(encoder).values())) == {frozenset({"F32"})}
    from pretrain.artifact import open_encoder

    _, parts = open_encoder(encoder)
    assert {
        p.dtype.itemsize
        for p in (*parts.encoder.parameters(), *parts.sequence_encoder.parameters())
    } == {4}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_every_stage_trained_in_another_precision_stores_float32(
    precision: str, tmp_path: Path
) -> None:
    stages = ("pretrain", "finetune", "text", "image")
    changes = [f"--{stage}.trainer.precision={precision}" for stage in stages]
    config = load_settings(PipelineConfig, TINY, [*changes, "--image.sample_every=1"])
    arms: dict[str, Any] = {
        **config.arms,
        "codes": ArmConfig(model="semantic-ids", transfer="frozen"),
        "words": ArmConfig(features="content+id", bag_of_words=True),
        "full": ArmConfig(transfer="full"),
        "zero-shot": ArmConfig(transfer="zero-shot"),
    }
    run_stages(replace(config, arms=arms), tmp_path, build_trainer)
    for place in ("encoder", "text", "image", *(f"recommenders/{arm}" for arm in arms)):
        kinds = kinds_in(tmp_path / place)
        assert kinds, place
        for name, found in kinds.items():
            assert found == ({"U8", "I32"} if name == "codes.safetensors" else {"F32"}), name


def test_a_device_that_is_not_there_is_one_line(
    demo_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = ["--catalog.path", demo_world / "home", "--output", tmp_path / "out"]
    given += ["--data.max_broken", 0.5, "--encoder.image", "null", "--trainer.accelerator", "gpu"]
    assert main(["pretrain", *map(str, given)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("vitrine: no training can be set up with accelerator gpu")
