"""Every shipped config loads, and says what it is."""

from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from launch.compare.config import CompareConfig
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings, shipped_configs
from pretrain.config import PretrainConfig

CLASSES = {
    "compare": CompareConfig,
    "pipeline": PipelineConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
}


def test_there_are_configs() -> None:
    assert len(shipped_configs()) >= 5


@pytest.mark.parametrize(
    "path", shipped_configs(), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_it_loads_and_begins_with_what_it_is_for(path: Path) -> None:
    settings = load_settings(CLASSES[path.parent.name], path, [])
    assert path.read_text().startswith("# ")
    if isinstance(settings, PipelineConfig):
        assert settings.headline in settings.arms
        assert set(settings.expected_seconds) >= {"pretrain", "text", "image", "showcase"}
        assert all(arm.description for arm in settings.arms.values())
