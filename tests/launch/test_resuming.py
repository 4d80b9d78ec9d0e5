"""Every training stage resumes where it was stopped, and ends with the same bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from catalog.artifacts import open_artifact
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_stages
from launch.settings import load_settings
from launch.trainer import build_trainer

pytestmark = pytest.mark.slow

MADE = ["encoder", "recommenders/lora", "recommenders/id", "text", "image"]
STAGES = ("world", "pretrain", "finetune", "text", "image")


class StopOnce(pl.Callback):
    """Breaks off the first run of each stage after its fourth backward pass."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 3 and trainer.default_root_dir not in self.stopped:
            self.stopped.add(trainer.default_root_dir)
            raise InterruptedError


def settings() -> PipelineConfig:
    config = load_settings(PipelineConfig, Path(__file__).with_name("tiny.yaml"), [])

    def longer(stage: Any) -> Any:
        return replace(stage, trainer=replace(stage.trainer, max_steps=5, checkpoint_every=2))

    names = ("pretrain", "finetune", "text", "image")
    return replace(config, **{name: longer(getattr(config, name)) for name in names})


def test_each_stage_ends_with_the_bytes_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    whole, broken, stop = tmp_path / "whole", tmp_path / "broken", StopOnce()
    run_stages(settings(), whole, build_trainer, STAGES)
    assert "resuming" not in capsys.readouterr().err

    def stopping(*arguments: Any, callbacks: Any) -> pl.Trainer:
        return build_trainer(*arguments, callbacks=[*callbacks, stop])

    for _ in MADE:
        with pytest.raises(InterruptedError):
            run_stages(settings(), broken, stopping, STAGES)
    run_stages(settings(), broken, stopping, STAGES)
    assert capsys.readouterr().err.count(": resuming at step 2") == len(MADE)
    for name in MADE:
        one, other = open_artifact(whole / name), open_artifact(broken / name)
        assert one.manifest["checksums"] == other.manifest["checksums"], name
        steps = [step for step, _ in json.loads((other.path / "curves.json").read_text())["loss"]]
        assert steps == [5], name
    assert not list(broken.rglob("step=*"))
