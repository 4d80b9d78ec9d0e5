"""An encoder pretrained for three steps on the demo's first shop, and settings for the second."""

from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from tests.stages import finetuning_of, pretrain_small


@pytest.fixture(scope="session")
def encoder(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_small(demo_world, tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="session")
def settings(encoder: Path, demo_world: Path) -> FinetuneConfig:
    return finetuning_of(encoder, demo_world)
