"""An image generator trained by two ranks under ZeRO-2, and again after a kill, gives the same images."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.image_resume import image_settings, pictures_of
from tests.pretrain.runs import differing_bytes, largest_difference
from tests.stages import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_settings(demo_world, tmp_path_factory.mktemp("shop"), steps=8, every=3)


@pytest.fixture(scope="module")
def whole(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("image") / "whole"
    train(settings, output, "zero2", 2, stage="image")
    return output


def test_killed_on_two_ranks_it_resumes_to_the_same_images(
    settings: Path, whole: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    train(settings, broken, "zero2", 2, kill_at=5, stage="image")
    assert train(settings, broken, "zero2", 2, stage="image")["first_step"] == 3
    assert differing_bytes(whole, broken) == 0
    assert largest_difference(whole, broken) == 0
    drawn = pictures_of(whole)
    assert np.array_equal(drawn, pictures_of(broken))
    assert len({picture.tobytes() for picture in drawn}) > 4
    train(settings, tmp_path / "one", stage="image")
    assert 0 < largest_difference(whole, tmp_path / "one") < 1e-5
