"""Pictures on their way to a tower: resampled as Pillow does it, hashed without a copy."""

import numpy as np
import pytest
import torch
from PIL import Image

from catalog.images import resample_bicubic
from pretrain.modalities.image import normalize_pixels, resample
from pretrain.vectors_artifact import as_it_lies, content_hashes

pytestmark = pytest.mark.numeric


def test_pictures_are_resampled_as_pillow_does_to_within_two_levels() -> None:
    draw = np.random.default_rng(0)
    for _ in range(60):
        height, width, *size = draw.integers(1, 200, 4).tolist()
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 3)).astype(np.uint8))
        found, expected = resample(picture, tuple(size)), resample_bicubic(picture, tuple(size))
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_a_picture_s_hash_is_of_its_pixels_alone() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3)).astype(np.uint8)
    pixels = normalize_pixels(pictures, [0.5] * 3, [0.5] * 3)
    assert not pixels.is_contiguous()
    assert as_it_lies(pixels.numpy()).flags.c_contiguous

    def hashes(some: torch.Tensor) -> list[tuple[int, ...]]:
        present = torch.ones(len(some), dtype=torch.bool)
        content = {"image": {"present": present, "pixel_values": some}}
        return [tuple(one) for one in content_hashes(content).tolist()]

    whole = hashes(pixels)
    assert len(set(whole)) == 5
    assert hashes(pixels[3:]) == whole[3:]
    pictures[2, 4, 4, 1] ^= 1
    again = hashes(normalize_pixels(pictures, [0.5] * 3, [0.5] * 3))
    assert [one == other for one, other in zip(again, whole, strict=True)] == [1, 1, 0, 1, 1]
