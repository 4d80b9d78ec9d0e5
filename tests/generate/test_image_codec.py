"""The codec, resolution buckets, and the cache of latents."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catalog.errors import VitrineError
from generate.image.codec import PatchCodec, fit_codec, peak_signal_to_noise
from generate.image.config import CodecConfig
from generate.image.latent_cache import encode_images
from generate.image.structure import CHANNELS
from tests.generate.image_world import RED, TINY, ImageWorld, codec_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ImageWorld:
    return ImageWorld(tmp_path_factory.mktemp("images"))


def test_codec_with_every_component_is_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    codec = PatchCodec.fit([images], patch_size=4, channels=48, overlap=0)
    copies = codec.decode(codec.encode(torch.from_numpy(images))).numpy()
    assert np.abs(copies.astype(int) - images).max() <= 1


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_codec_of_overlapping_patches_is_exact(overlap: int) -> None:
    """A window whose squares sum to 1 gives back what all components keep."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (150, 12, 12, 3), dtype=np.uint8)
    codec = PatchCodec.fit([images], 4, channels=3 * (4 + 2 * overlap) ** 2, overlap=overlap)
    copies = codec.decode(codec.encode(torch.from_numpy(images))).numpy()
    assert np.abs(copies.astype(int) - images).max() <= 1


def test_codec_keeps_smooth_images_with_few_components() -> None:
    ramp = np.linspace(0, 1, 32)
    angles = np.random.default_rng(0).uniform(0, 6, (40, 3))
    images = np.stack(
        [np.sin(4 * ramp[:, None, None] * np.cos(a) + 4 * ramp[None, :, None] + a) for a in angles]
    )
    pixels = ((images + 1) * 127).astype(np.uint8)
    psnr = {}
    for channels in (4, 12, 24):
        codec = PatchCodec.fit([pixels[:30]], 8, channels, overlap=1)
        copies = codec.decode(codec.encode(torch.from_numpy(pixels[30:]))).numpy()
        psnr[channels] = peak_signal_to_noise(pixels[30:], copies)
    assert psnr[4] < psnr[12] < psnr[24]
    assert psnr[24] > 35


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_variance_one_on_average(whitening: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 2, 2, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    latents = PatchCodec.fit([images], 4, 3, 0, whitening).encode(torch.from_numpy(images))
    assert latents.shape == (80, 3, 2, 2)
    assert latents.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)


def test_codec_settings_that_cannot_work_are_refused(world: ImageWorld) -> None:
    def fit(**settings: Any) -> None:
        fit_codec(world, replace(TINY, **settings))  # type: ignore[arg-type]

    with pytest.raises(VitrineError, match="multiple"):
        fit(image_size=60)
    with pytest.raises(VitrineError, match="channels 50"):
        fit(codec=CodecConfig(patch_size=4, channels=50, overlap=0))
    with pytest.raises(VitrineError, match="num_resolution_buckets is 0"):
        fit(num_resolution_buckets=0)


def test_images_are_encoded_once_and_missing_ones_marked(world: ImageWorld, tmp_path: Path) -> None:
    codec = codec_of(world)
    first = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert first.bucket_of.tolist() == [0] * 23 + [-1]
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"done": 20}))
    kept = np.array(first.latents[0])
    first.latents[0][19:] = 0  # type: ignore[index]
    again = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert (np.asarray(again.latents[0])[19] == 0).all(), "what is done is not done again"
    assert np.array_equal(again.latents[0][20:], kept[20:])
    (tmp_path / "state.json").write_text(json.dumps(state | {"key": "of another codec"}))
    anew = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert np.array_equal(anew.latents[0], kept)


def test_images_of_two_shapes_are_cached_in_two_buckets(tmp_path: Path) -> None:
    world = ImageWorld(tmp_path, (32, 16))
    for item in range(6):
        Image.new("RGB", (32, 32), RED).save(tmp_path / f"{item}.png")
    for buckets, wanted in ((1, [(24, 8)]), (2, [(24, 8), (16, 16)])):
        config = replace(TINY, num_resolution_buckets=buckets)
        codec = fit_codec(world, config)  # type: ignore[arg-type]
        assert [_ratio(bucket) for bucket in codec.buckets] == [_ratio(bucket) for bucket in wanted]
        images = encode_images(world, codec, tmp_path / str(buckets))  # type: ignore[arg-type]
        assert images.bucket_of.tolist() == [buckets - 1] * 6 + [0] * 17 + [-1]
        for item in (0, 10):
            bucket, row = images.bucket_of[item], images.row_of[item]
            grid = codec.latent_grid(codec.buckets[bucket])
            assert images.latents[bucket][row].shape == (8, *grid)
            assert images.structures[bucket][row].shape == (CHANNELS, *grid)


def _ratio(size: tuple[int, int]) -> float:
    return size[0] / size[1]
