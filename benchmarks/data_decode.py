"""Decoding and embedding pictures: pictures a second, and how near a fraction of a JPEG is to the whole.

python -m benchmarks.data_decode    # about 3 minutes on two cores
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig, AutoModel

from benchmarks.pretrained import pretrained_folder
from benchmarks.record import ROOT, write_record
from catalog.artifacts import write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.images import fit_image, read_image
from finetune.statistics import ratio_interval
from pretrain.artifact import new_encoder
from pretrain.config import EmbedConfig, EncoderConfig, ExtractConfig, TowerConfig
from pretrain.embed import run_embedding
from pretrain.vector_file import open_vectors

FASHION = ROOT.parent / "shared" / "data" / "fashion"
PHOTOGRAPHS = 60
TILES = (4, 5, 6)
"""Garments in a row and a column of a photograph: 960, 1,200 and 1,440 pixels wide."""
TILE = (240, 360)
QUALITY = 90
SIDE = 224
ROUNDS = 5
BATCH = 160
PROCESSES = 2
TOWER: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "patch_size": 32,
    "image_size": SIDE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embed", type=Path, metavar="FOLDER", help="one process of the embedding")
    arguments = parser.parse_args()
    if arguments.embed:
        embed(arguments.embed)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = write_photographs(folder / "photographs")
        figures = decoding(photographs) | vectors(folder, photographs) | embedding(folder)
    write_record(
        "data-decode",
        claim="Photographs are decoded to 224 pixels at least 1.35 times as fast as Pillow does it "
        "to the same picture; a catalog's pictures are embedded at 600 a second on two cores.",
        command="python -m benchmarks.data_decode",
        seeds=[0],
        figures=figures,
        goal=[
            "speedup_over_pillow_low >= 1.35",
            "least_psnr_db >= 40",
            "embedded_pictures_per_second >= 600",
            "tower_ms >= 0.9",
        ],
        sources=[
            "catalog/images.py",
            "pretrain/block_store.py",
            "pretrain/content_loader.py",
            "pretrain/embed.py",
            "pretrain/embed_items.py",
            "pretrain/modalities/image.py",
            "pretrain/modalities/media.py",
            "pretrain/vectors_artifact.py",
        ],
        note=f"Photographs: {PHOTOGRAPHS} JPEGs of quality {QUALITY}, each of 16 to 36 garments of the "
        "fashion shop side by side at their own resolution, 960 × 1,440 to 1,440 × 2,160 pixels. Pillow: the "
        "whole decoded, then resized and letter-boxed as ours; CPU time of one thread, least for each "
        f"of {ROUNDS} rounds in turns, ratio with a 95 % interval. psnr: against that. cosine: "
        "vectors of EfficientNet-Lite0 with scaled_decoding against those without. "
        "embedded: `vitrine embed` of the shop's 3,186 photographs (240 × 360) by torchrun with "
        f"{PROCESSES} processes of one thread, nothing cached, from the catalog's opening to the artifact on "
        "disk; a ViT whose forward pass takes tower_ms a picture on one thread.",
    )


def write_photographs(folder: Path) -> list[Path]:
    folder.mkdir()
    garments = sorted((FASHION / "images").rglob("*.jpg"))
    draw = np.random.default_rng(0)
    paths = []
    for number in range(PHOTOGRAPHS):
        side = TILES[number % len(TILES)]
        canvas = Image.new("RGB", (TILE[0] * side, TILE[1] * side))
        for place, garment in enumerate(draw.choice(len(garments), side * side, replace=False)):
            row, column = divmod(place, side)
            with Image.open(garments[garment]) as image:
                tile = image.convert("RGB").resize(TILE)
            canvas.paste(tile, (column * TILE[0], row * TILE[1]))
        paths.append(folder / f"{number:02}.jpg")
        canvas.save(paths[-1], quality=QUALITY)
    return paths


def whole(path: Path) -> NDArray[np.uint8]:
    """The photograph as Pillow decodes it whole, resized and letter-boxed."""
    with Image.open(path) as image:
        image.load()
        return fit_image(image, SIDE)


def decoding(photographs: list[Path]) -> dict[str, Any]:
    ways = {"pillow": whole, "ours": lambda path: read_image(path, SIDE)}
    seconds = {name: np.full(len(photographs), np.inf) for name in ways}
    psnr = []
    for number, path in enumerate(photographs):
        for _ in range(ROUNDS):
            for name, decode in ways.items():
                began = time.process_time()
                decode(path)
                seconds[name][number] = min(seconds[name][number], time.process_time() - began)
        error = np.mean((whole(path).astype(float) - read_image(path, SIDE).astype(float)) ** 2)
        psnr.append(10 * np.log10(255**2 / error))
    return {
        "photographs": len(photographs),
        "pillow_ms": float(np.median(seconds["pillow"]) * 1e3),
        "ours_ms": float(np.median(seconds["ours"]) * 1e3),
        "speedup_over_pillow": ratio_interval(seconds["pillow"], seconds["ours"]),
        "least_psnr_db": float(min(psnr)),
        "median_psnr_db": float(np.median(psnr)),
    }


def vectors(folder: Path, photographs: list[Path]) -> dict[str, Any]:
    """Cosines between the vectors of a pretrained tower, with and without `scaled_decoding`."""
    shop = folder / "shop"
    shop.mkdir()
    for path in photographs:
        (shop / path.name).write_bytes(path.read_bytes())
    rows = "".join(f"i{path.stem},{path.name}\n" for path in photographs)
    (shop / "items.csv").write_text(f"item_id,image\n{rows}")
    (shop / "interactions.csv").write_text("user_id,item_id\nu,i00\n")
    found = []
    for scaled in (False, True):
        extract = ExtractConfig(
            kind="image",
            model=str(pretrained_folder("image")),
            source="image",
            scaled_decoding=scaled,
        )
        config = EmbedConfig(catalog=CatalogConfig(path=str(shop)), extract={"image": extract})
        output = run_embedding(config, folder / f"vectors-{scaled}")
        found.append(open_vectors(output / "image.safetensors"))
    whole, fraction = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in found)
    cosines = (whole * fraction).sum(axis=1)
    return {"least_cosine": float(cosines.min()), "median_cosine": float(np.median(cosines))}


def embedding(folder: Path) -> dict[str, Any]:
    """Pictures a second of the shop's catalog by all processes together, and what the tower alone takes."""
    encoder = folder / "encoder"
    catalog = load_catalog(CatalogConfig(path=str(FASHION)))
    tower = TowerConfig(config=TOWER, image_size=SIDE)
    parts = new_encoder(EncoderConfig(text=None, image=tower), catalog)
    with write_artifact(encoder, kind="encoder") as staging:
        parts.save(staging.path)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VITRINE_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(PROCESSES), "-m", "benchmarks.data_decode"]
    subprocess.run(
        [*command, "--embed", str(folder)], cwd=ROOT, env=environment, check=True, timeout=600
    )
    spans = [json.loads(path.read_text()) for path in folder.glob("span-*.json")]
    assert len(spans) == PROCESSES
    seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
    pictures = sum(path is not None for path in catalog.items["image"][:])
    return {
        "embedded_pictures": pictures,
        "embedding_seconds": seconds,
        "embedded_pictures_per_second": pictures / seconds,
        "tower_ms": tower_ms(),
    }


def embed(folder: Path) -> None:
    """One process of the embedding: writes when it began and ended."""
    torch.set_num_threads(1)
    config = EmbedConfig(encoder=str(folder / "encoder"), catalog=CatalogConfig(path=str(FASHION)))
    began = time.time()
    run_embedding(config, folder / "vectors")
    rank = os.environ["RANK"]
    (folder / f"span-{rank}.json").write_text(json.dumps([began, time.time()]))


def tower_ms() -> float:
    """Milliseconds that the tower takes a picture: the least of some batches, CPU time of one thread."""
    tower = AutoModel.from_config(AutoConfig.for_model(**TOWER)).eval()
    pixels = torch.randn(BATCH, 3, SIDE, SIDE)
    least = np.inf
    with torch.no_grad():
        for _ in range(ROUNDS):
            began = time.process_time()
            tower(pixel_values=pixels)
            least = min(least, time.process_time() - began)
    return float(least / BATCH * 1e3)


if __name__ == "__main__":
    main()
