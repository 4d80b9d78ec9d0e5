"""A ranked list with pictures is there long before the last stage, on a page that says what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import launch.pipeline.run as pipeline_run
from catalog.demo import build_demo_world
from catalog.errors import VitrineError
from finetune.config import ArmConfig
from launch.pipeline.config import PipelineConfig
from launch.pipeline.pages import Pages
from launch.pipeline.preview import best_arm
from launch.pipeline.run import run_pipeline
from launch.pipeline.stage import Stage, StageLog
from launch.settings import load_settings

CONFIG = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    build_demo_world(folder / "world", num_items=80, num_users=60)
    return folder


@pytest.fixture
def config(output: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    monkeypatch.setenv("VITRINE_CACHE", str(output.parent / "cache"))
    return load_settings(PipelineConfig, CONFIG, [])


def fake(name: str, folder: Path, run: Any, done: bool = False) -> Stage:
    return Stage(name, folder / name, "", {}, {}, run, lambda: done, alone=True)


def test_the_first_page_is_there_before_a_model_is_trained(
    output: Path,
    config: PipelineConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages: list[str] = []

    def pretrain() -> None:
        pages.append((output / "report.html").read_text(encoding="utf8"))
        raise VitrineError("enough")

    names = ("pretrain", "finetune lora", "text", "image", "showcase")
    later = [fake(name, output, pretrain) for name in names]
    stages = [fake("world", output, None, done=True), *later]
    monkeypatch.setattr(pipeline_run, "pipeline_stages", lambda *_: stages)
    with pytest.raises(VitrineError, match="enough"):
        run_pipeline(replace(config, arms={"lora": ArmConfig()}), output, None)
    (page,) = pages
    assert page.index("Preliminary.") < page.index("Recommended to a user")
    assert "pretrain, finetune lora, text, image, showcase" in page
    assert page.count('class="user"') == config.showcase.num_users
    recommended = page[page.index("Recommended<small>") :]
    assert recommended.index("data:image/png") < recommended.index("</ol>")
    assert "item-kNN" in page
    printed = capsys.readouterr().err
    assert printed.index("First page") > printed.index("pretrain")
    assert str(output / "report.html") in printed


def test_there_is_no_page_before_there_is_a_catalog(
    output: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    Pages(config, tmp_path).update(StageLog(tmp_path / "stages.json"), ["world", "pretrain"])
    assert not (tmp_path / "report.html").exists()


def test_lists_are_those_of_the_headline_arm_once_it_is_there(config: PipelineConfig) -> None:
    arms = {
        "id": ArmConfig(transfer="scratch", features="id"),
        "zero-shot": ArmConfig(transfer="zero-shot"),
        "lora": ArmConfig(),
    }
    config = replace(config, arms=arms)
    left = [f"finetune {name}" for name in arms]
    assert best_arm(config, left) == ""
    assert best_arm(config, left[1:]) == ""  # ids alone: a control
    assert best_arm(config, ["finetune lora"]) == "zero-shot"
    assert best_arm(config, []) == "lora"


def test_a_page_is_replaced_whole(output: Path, config: PipelineConfig) -> None:
    """Whoever reads it while it is written sees the one before."""
    log = StageLog(output / "stages.json")
    left = ["pretrain", "finetune lora", "finetune id", "text", "image", "showcase"]
    path = Pages(config, output).write(log, left)
    with path.open(encoding="utf8") as reader:
        Pages(config, output).write(log, left)
        assert reader.read().rstrip().endswith("</html>")
    assert not list(output.glob(".report.html.*"))
