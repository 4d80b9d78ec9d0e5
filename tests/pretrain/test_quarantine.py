"""Odd pictures and odd words: training goes on, and what is broken is counted exactly."""

import errno
import json
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.modalities import MODALITIES
from pretrain.run import run_pretraining
from tests.pretrain.test_modalities import BERT, VIT

BROKEN = {
    "cut.jpg": "damaged",
    "empty.png": "empty",
    "huge.png": "12000×12000",
    "gone.jpg": "missing",
}
FINE = ["plain.png", "cmyk.jpg", "deep.png", "moving.gif", "turned.jpg"]


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(256, size=(40, 30, 3), dtype=np.uint8))
    noise.save(folder / "plain.png")
    noise.save(folder / "whole.jpg", quality=95)
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(65536, size=(20, 20), dtype=np.uint16)).save(folder / "deep.png")
    frames = [noise.point(lambda v, n=n: (v + 80 * n) % 256) for n in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "turned.jpg", exif=exif)
    (folder / "empty.png").write_bytes(b"")

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)  # 144 megapixels of grey
    rows = zlib.compress(b"\0" * (12_001 * 12_000), 9)
    huge = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    (folder / "huge.png").write_bytes(huge)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    folder = tmp_path_factory.mktemp("odd")
    write_pictures(folder)
    pictures = [*FINE, *BROKEN, None, None, None]
    titles = [r"half \ud800 a pair", r"\udc00\udc00", "z" * 1_000_000, "", "   ", "\\u0000 zero"]
    titles += [f"thing {n}" for n in range(len(pictures) - len(titles))]
    lines = [
        f'{{"item_id": "i{n}", "title": "{title}", "image": {json.dumps(picture)}}}\n'
        for n, (title, picture) in enumerate(zip(titles, pictures, strict=True))
    ]
    (folder / "items.jsonl").write_text("".join(lines))
    taken = [f"{u},i{(u + t) % len(lines)},{10 * u + t}" for u in range(12) for t in range(6)]
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp", *taken]) + "\n"
    )
    return PretrainConfig(
        catalog=CatalogConfig(path=str(folder)),
        encoder=EncoderConfig(
            width=8,
            text=TowerConfig(config=BERT, vocab_size=80),
            image=TowerConfig(config=VIT, image_size=16),
            sequence=SequenceConfig(layers=1, heads=2),
        ),
        data=PretrainDataConfig(rows=3, row_length=6, max_broken=0.5),
        trainer=TrainerConfig(max_steps=3, accelerator="cpu", progress=False, log_every=1),
    )


def test_the_run_completes_and_the_quarantine_is_exact(
    config: PretrainConfig, tmp_path: Path
) -> None:
    output = run_pretraining(config, tmp_path / "encoder", build_trainer)
    lines = (output / "quarantine.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    places = {name: f"i{n}" for n, name in enumerate([*FINE, *BROKEN])}
    assert {entry["item_id"] for entry in entries} == {places[name] for name in BROKEN}
    for entry in entries:
        name = [*FINE, *BROKEN][int(entry["item_id"][1:])]
        assert entry["modality"] == "image"
        assert BROKEN[name] in entry["reason"], entry
    metrics = open_artifact(output).manifest["metrics"]
    assert metrics["quarantined"] == len(BROKEN)
    losses = json.loads((output / "curves.json").read_text())["loss"]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_too_many_broken_ones_are_refused_before_training(
    config: PretrainConfig, tmp_path: Path
) -> None:
    strict = replace(config, data=replace(config.data, max_broken=0.01))
    wanted = r"4 of 12 items .* data\.max_broken = 0\.01 .* image of item i5: .*--data\.max_broken"
    with pytest.raises(VitrineError, match=wanted):
        run_pretraining(strict, tmp_path / "encoder", build_trainer)
    assert not (tmp_path / "encoder").exists()


def test_a_picture_too_large_is_refused_from_its_header(config: PretrainConfig) -> None:
    """Unpacked it would take 137 MiB, in colour three times as much."""
    script = """
import re, sys
from pathlib import Path
from catalog.errors import BrokenFileError
from catalog.images import read_image

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

folder = Path(sys.argv[1])
read_image(folder / "plain.png", 32)
before = peak()
try:
    read_image(folder / "huge.png", 32)
except BrokenFileError as reason:
    print(reason, peak() - before, sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, config.catalog.path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    reason, grown = done.stdout.split("|")
    assert "too many" in reason
    assert float(grown) <= 50


def test_a_disk_error_ends_the_reading_and_marks_nothing_broken(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("catalog.images.RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("pretrain.modalities.media.BLOCK", 1)
    catalog = load_catalog(config.catalog)
    spec = {"source": "image", "image_size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
    modality = MODALITIES["image"](spec)
    open_picture, opened = Image.open, []

    def fail_for_one(path: str, *arguments: object) -> Image.Image:
        opened.append(Path(path).name)
        if opened[-1] == FINE[2]:
            raise OSError(errno.EIO, "Input/output error", path)
        return open_picture(path, *arguments)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as disk:
        disk.setattr(Image, "open", fail_for_one)
        with pytest.raises(VitrineError, match=FINE[2]):
            modality.open(catalog, None)
    assert opened.count(FINE[2]) == 3
    source = modality.open(catalog, None)
    assert sorted(source.broken) == list(range(len(FINE), len(FINE) + len(BROKEN)))
