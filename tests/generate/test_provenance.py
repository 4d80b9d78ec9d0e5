"""Signatures that notice every change, and the watermark."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.errors import VitrineError
from generate import provenance
from generate.image.watermark import THRESHOLD, detect_watermark, embed_watermark
from generate.provenance import fingerprint, signed_jpeg, signed_png, verify

ABOUT = {"Mode": "concept", "Item": "köln–7", "Settings": {"seed": 3}}


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "keys" / "key.pem"
    monkeypatch.setenv("VITRINE_KEY", str(place))
    provenance._read_key.cache_clear()
    return place


def image(size: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


@pytest.mark.parametrize("sign", [signed_png, signed_jpeg])
def test_any_changed_byte_is_detected(sign, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    content = sign(image(), ABOUT)
    file.write_bytes(content)
    verdict = verify(file)
    assert verdict.is_signed
    assert verdict.is_intact
    assert verdict.signer == fingerprint()
    assert verdict.metadata == ABOUT
    with Image.open(file) as opened:
        assert opened.size == (24, 24)
    rng = np.random.default_rng(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        assert not verify(file).is_intact, place
    for changed in (content + b"\0", content[:-1], b"", content[:40], b"no picture"):
        file.write_bytes(changed)
        assert not verify(file).is_intact


def test_a_png_keeps_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(signed_png(image(), ABOUT))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(image()))


def test_another_signer_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = fingerprint()
    monkeypatch.setenv("VITRINE_KEY", str(tmp_path / "other.pem"))
    (tmp_path / "a.png").write_bytes(signed_png(image(), ABOUT))
    verdict = verify(tmp_path / "a.png")
    assert verdict.is_intact
    assert verdict.signer != mine


def test_the_key_is_created_once_and_readable_by_its_owner_alone(key: Path) -> None:
    first = fingerprint()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    provenance._read_key.cache_clear()
    assert fingerprint() == first
    assert os.listdir(key.parent) == ["key.pem"]


def test_an_unusable_key_gives_an_error_of_one_line(key: Path) -> None:
    key.parent.mkdir()
    key.write_text("no key")
    with pytest.raises(VitrineError, match="holds no private key"):
        fingerprint()
    with pytest.raises(VitrineError, match="cannot be read"):
        verify(key.parent / "not-there.png")


def scene(seed: int, side: int = 128) -> np.ndarray:
    """Patches of colour with soft edges and some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 225, (6, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def test_the_watermark_is_detected_where_it_is_and_nowhere_else() -> None:
    for seed in range(10):
        plain = scene(seed)
        marked = embed_watermark(plain)
        assert np.abs(marked.astype(int) - plain).mean() < 3
        assert detect_watermark(marked) > THRESHOLD
        assert detect_watermark(plain) < THRESHOLD
        part = Image.fromarray(marked[13:109, 21:117])
        assert detect_watermark(np.asarray(part)) > THRESHOLD
        larger = Image.fromarray(marked).resize((160, 160), Image.Resampling.BICUBIC)
        assert detect_watermark(np.asarray(larger)) > THRESHOLD
