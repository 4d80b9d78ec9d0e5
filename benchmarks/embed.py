"""Embedding a catalog with real towers: speed against the usual loops, and memory up to a million items.

python -m benchmarks.embed           # speed and equality; about 20 minutes on one core
python -m benchmarks.embed memory    # memory at 100,000 and a million items; about 5 minutes
"""

import argparse
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from benchmarks.contrast import alternate, ratio_of_medians, resident
from benchmarks.pretrained import pretrained_folder
from benchmarks.record import ROOT, write_record
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from pretrain.config import EmbedConfig, EncoderConfig, ExtractConfig, Precision, TowerConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.devices import Compute
from pretrain.embed import run_embedding
from pretrain.embed_items import length_sorted_batches
from pretrain.extract import Extractors
from pretrain.vectors_artifact import content_hashes

FASHION = ROOT.parent / "shared" / "data" / "fashion"
ROUNDS = 4
ITEMS = {"text": 1024, "image": 32}
"""Items embedded in a round."""
CATALOG = 3186
"""Garments."""
BATCH = 32
"""Batch size of the loops; also that of sentence-transformers by default."""
PRECISIONS: dict[str, Precision] = {"fp32": "32-true", "bf16": "bf16-mixed"}
COSINE = 0.999
"""Least cosine between vectors in bfloat16."""
SIZES = (100_000, 1_000_000)
WORDS = ["oak", "vase", "blue", "dotted", "linen", "wide", "old", "soft", "cup", "lamp", "grey"]
SOURCES = [
    "benchmarks/contrast.py",
    "benchmarks/pretrained.py",
    "pretrain/block_store.py",
    "pretrain/content_loader.py",
    "pretrain/embed.py",
    "pretrain/embed_items.py",
    "pretrain/modalities/image.py",
    "pretrain/modalities/media.py",
    "pretrain/modalities/text.py",
    "pretrain/towers/*.py",
    "pretrain/vectors_artifact.py",
]

Embed = Callable[[Sequence[int]], NDArray[np.float32]]
"""Rows of items → their vectors (num_items, width)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "memory"), nargs="?", default="speed")
    parser.add_argument("--cell", nargs=2, metavar=("FOLDER", "WHAT"), help="one memory cell")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cell:
        print(json.dumps(memory_cell(Path(arguments.cell[0]), arguments.cell[1])))
    elif arguments.what == "memory":
        record_memory()
    else:
        record_speed()


def record_speed() -> None:
    figures: dict[str, Any] = {}
    for precision in PRECISIONS:
        compute = Compute(torch.device("cpu"), PRECISIONS[precision])
        figures |= speed("text", text_ways(compute), precision)
        figures |= speed("image", image_ways(compute), precision)
    peers = {"text": ("sentence_transformers", "loop"), "image": ("loop",)}
    write_record(
        "models-embed",
        claim="Real towers embed a catalog at least 1.1 times as fast as sentence-transformers and a loop "
        "around transformers do, to equal vectors.",
        command="python -m benchmarks.embed",
        seeds=[0],
        figures=figures,
        sources=SOURCES,
        goal=[
            *(
                f"{kind}_{precision}_speedup_over_{peer}_low >= 1.1"
                for kind, names in peers.items()
                for precision in PRECISIONS
                for peer in names
            ),
            *(f"{kind}_fp32_largest_difference <= 1e-5" for kind in peers),
            *(f"{kind}_bf16_least_cosine >= {COSINE}" for kind in peers),
        ],
        note="text: all-MiniLM-L6-v2 on names and descriptions of garments, mean pooling, unit length. "
        f"image: EfficientNet-Lite0 at 224 pixels on their photographs. loop: batches of {BATCH} in the "
        "catalog's order, the checkpoint's own tokenizer or image processor. Images are decoded from the "
        "files on both sides, ours into the cache, new in every round; hashes of the content included. "
        "bf16: autocast on both sides. One thread; rounds alternate in rotating order; medians of process "
        "time over rounds, ratios with 95 % bootstrap intervals. Differences over fp32 vectors of "
        f"width 384 and 1,280. {ITEMS['text']} texts and {ITEMS['image']} images a round.",
    )


def speed(kind: str, ways: dict[str, Embed], precision: str) -> dict[str, Any]:
    """Ratios of CPU time, theirs over ours, and how far the vectors differ."""
    rounds = rounds_of(kind)
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ways}

    def run_round(name: str) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            vectors[name].append(ways[name](rounds[len(vectors[name])]))

    seconds, calibration = alternate({name: partial(run_round, name) for name in ways}, ROUNDS)
    ours = np.concatenate(vectors.pop("ours"))
    figures: dict[str, Any] = {"matmul_cpu_seconds": float(np.median(calibration))}
    figures |= {
        f"{name}_items_per_cpu_second": ITEMS[kind] / float(np.median(taken))
        for name, taken in seconds.items()
    }
    differences, cosines = [], []
    for name, parts in vectors.items():
        theirs = np.concatenate(parts)
        figures[f"speedup_over_{name}"] = ratio_of_medians(seconds[name], seconds["ours"])
        differences.append(float(np.abs(ours - theirs).max()))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append(float(((ours * theirs).sum(axis=1) / norms).min()))
    figures |= {"largest_difference": max(differences), "least_cosine": min(cosines)}
    print(kind, precision, figures, flush=True)
    return {f"{kind}_{precision}_{name}": figure for name, figure in figures.items()}


def rounds_of(kind: str) -> list[list[int]]:
    """Rows of the items of each round, ascending; the first round is not counted."""
    drawn = (
        np.random.default_rng(n).choice(CATALOG, ITEMS[kind], replace=False)
        for n in range(ROUNDS + 1)
    )
    return [np.sort(rows).tolist() for rows in drawn]


def text_ways(compute: Compute) -> dict[str, Embed]:
    """Ours, sentence-transformers, and a loop around transformers."""
    from sentence_transformers import SentenceTransformer

    path = str(pretrained_folder("text"))
    catalog = load_catalog(CatalogConfig(path=str(FASHION)))
    peer = SentenceTransformer(path, device="cpu")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    extractors = Extractors({"it": ExtractConfig(model=path)}, None, catalog)
    extractors.place(compute)
    loader = ItemContentLoader(catalog, extractors.kinds, extractors.processors)

    def ours(items: Sequence[int]) -> NDArray[np.float32]:
        return embedded(extractors, loader, np.array(items))

    def encode(items: Sequence[int]) -> NDArray[np.float32]:
        texts = [catalog.item_text(item) or "" for item in items]
        return peer.encode(texts, batch_size=BATCH, show_progress_bar=False)

    def loop(items: Sequence[int]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(items), BATCH):
            texts = [catalog.item_text(item) or "" for item in items[start : start + BATCH]]
            inputs = tokenizer(
                texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            parts.append(F.normalize(pooled.float(), dim=-1))
        return torch.cat(parts).numpy()

    return {"ours": ours, "sentence_transformers": encode, "loop": loop}


def image_ways(compute: Compute) -> dict[str, Embed]:
    """Ours, and a loop around transformers."""
    path = str(pretrained_folder("image"))
    whole = load_catalog(CatalogConfig(path=str(FASHION)))
    files = [str(whole.media_path(item, "image")) for item in range(CATALOG)]
    processor = AutoImageProcessor.from_pretrained(path)
    model = AutoModel.from_pretrained(path).eval()
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["VITRINE_CACHE"] = f"{folder}/cache"  # nothing is decoded yet
    shops = {rows[0]: write_part(Path(folder), rows) for rows in rounds_of("image")}
    extractors = Extractors({"it": ExtractConfig(model=path, kind="image")}, None, whole)
    extractors.place(compute)

    def ours(items: Sequence[int]) -> NDArray[np.float32]:
        shop = shops[items[0]]
        loader = ItemContentLoader(shop, extractors.kinds, extractors.processors)  # decodes
        return embedded(extractors, loader, np.arange(shop.num_items))

    def loop(items: Sequence[int]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(items), BATCH):
            names = [files[item] for item in items[start : start + BATCH]]
            images = [Image.open(name).convert("RGB") for name in names]
            pixels = processor(images=images, return_tensors="pt")["pixel_values"]
            parts.append(model(pixel_values=pixels).last_hidden_state.mean(dim=(2, 3)).float())
        return torch.cat(parts).numpy()

    return {"ours": ours, "loop": loop}


def write_part(folder: Path, rows: Sequence[int]) -> Catalog:
    """A catalog of some garments, in their order."""
    part = folder / f"from-{rows[0]}"
    (part / "images").mkdir(parents=True)
    lines = (FASHION / "items.jsonl").read_text(encoding="utf8").splitlines()
    kept = [lines[row] for row in rows]
    (part / "items.jsonl").write_text("\n".join(kept) + "\n", encoding="utf8")
    for line in kept:
        image = json.loads(line)["image"]
        shutil.copy(FASHION / image, part / image)
    first = json.loads(kept[0])["item_id"]
    (part / "interactions.csv").write_text(f"user_id,item_id,timestamp\nu,{first},0\n")
    return load_catalog(CatalogConfig(path=str(part)))


def embedded(
    extractors: Extractors, loader: ItemContentLoader, items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The vectors of ascending `items`, read, hashed and batched as `vitrine embed` does."""
    vectors = np.empty((len(items), extractors.width("it")), dtype=np.float32)
    for batch in length_sorted_batches(loader, items, EmbedConfig().batch_tokens):
        content = loader.read(batch)
        content_hashes(content)
        found, _ = extractors("it", content)
        vectors[np.searchsorted(items, batch)] = found.float().numpy()
    return vectors


def record_memory() -> None:
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
    write_record(
        "pretrain-embed",
        claim="A catalog is embedded in memory that does not grow with the catalog.",
        command="python -m benchmarks.embed memory",
        seeds=[0],
        figures={**figures, "rss_growth_mib": large - small},
        sources=SOURCES,
        goal=["rss_growth_mib <= 64"],
        note="Highest resident memory of a fresh process that runs `vitrine embed`: a small tower, "
        "titles of 2 to 12 words.",
    )


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
