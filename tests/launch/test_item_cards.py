"""Images of items become small PNG or JPEG files for the report; broken ones are None."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.report.gallery import MAX_PIXELS, image_tag
from launch.report.item_cards import page_image


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF", "PNG", "JPEG"])
@pytest.mark.parametrize("size", [(40, 20), (1200, 900)])
def test_images_of_every_kind_are_embedded_at_the_size_of_the_page(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"picture.{kind.lower()}"
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = page_image(str(path))
    assert data is not None
    assert "no image" not in str(image_tag(data, "a cup"))
    with Image.open(io.BytesIO(data)) as small:
        assert max(small.size) == min(max(size), MAX_PIXELS)
        assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)
    assert len(data) < 60_000
    if max(size) <= MAX_PIXELS and kind in ("PNG", "JPEG"):
        assert data == path.read_bytes()


def test_a_broken_image_is_none(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.new("RGB", (4, 4), "#2f6350").save(path)
    path.write_bytes(path.read_bytes()[:40])
    assert page_image(str(path)) is None
    assert page_image(str(tmp_path / "nowhere.png")) is None
    assert page_image(None) is None
