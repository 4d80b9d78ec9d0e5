"""Towers of many architectures: each is saved, loaded by path, trained, embedded, planned and reloaded.

python -m benchmarks.towers                 # all, about ten minutes on two cores
python -m benchmarks.towers --only bert,vit # prints these rows, records nothing
"""

import argparse
import logging
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.figures import figure_name
from benchmarks.record import write_record
from benchmarks.tiny_models import DUAL, MODELS, SECONDS, UNSEEN
from benchmarks.tiny_towers import own_vectors, save_tower, tiny_shop
from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from launch.memory_plan.plan import make_memory_plan
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle
from pretrain.config import (
    EmbedConfig,
    EncoderConfig,
    ExtractConfig,
    Kind,
    ModalityConfig,
    ObjectivesConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.embed import run_embedding
from pretrain.run import run_pretraining
from pretrain.vector_file import open_vectors

COLUMNS: dict[str, str] = {"text": "title", "image": "image", "audio": "sound", "video": "film"}
MODES: dict[str, dict[str, Any]] = {
    "frozen": {"frozen": True},
    "lora": {"lora_rank": 2},
    "full": {},
}
TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of architectures, comma-separated")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for noisy in ("transformers", "pytorch_lightning", "lightning"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    names = [name for name in arguments.only.split(",") if name] or [*MODELS, *DUAL]
    with tempfile.TemporaryDirectory() as folder:
        catalog = tiny_shop(Path(folder) / "shop")
        rows = {name: row(name, catalog, Path(folder) / name) for name in names}
    if not arguments.only:
        record(rows)


def row(name: str, catalog: Catalog, folder: Path) -> dict[str, Any]:
    """How the architecture `name` does: the largest difference of its vectors from its own forward pass, and
    what failed, if anything."""
    try:
        found = measure(name, catalog, folder)
    except Exception as error:
        found = {"failed": " ".join(str(error).replace(str(folder), name).split())[:300]}
    print(name, found, flush=True)
    return found


def measure(name: str, catalog: Catalog, folder: Path) -> dict[str, Any]:
    checkpoint = folder / "checkpoint"
    texts = [catalog.texts()(item) or "" for item in range(catalog.num_items)]
    save_tower(name, checkpoint, texts)
    kinds: tuple[Kind, ...] = ("text", "image") if name in DUAL else (MODELS[name][0],)
    own = {kind: own_vectors(name, kind, checkpoint, catalog) for kind in kinds}
    found: dict[str, Any] = {"embed": 0.0, "reload": 0.0}
    for mode, changes in MODES.items():
        config = training(name, kinds, checkpoint, catalog, changes)
        plan = make_memory_plan(config, "a100-40", folder / "planned")
        problems = [problem.message for problem in plan.problems if problem.is_error]
        if problems:
            raise AssertionError(f"the plan of {mode} says {problems[0]}")
        encoder = run_pretraining(config, folder / mode, build_trainer)
        vectors = embedded(encoder, kinds, catalog, folder / f"{mode}-vectors")
        for kind in kinds:
            moved = largest_difference(vectors[kind], own[kind])
            if mode == "frozen":
                found["embed"] = max(found["embed"], moved)
            elif not moved > TOLERANCE:
                raise AssertionError(f"three steps of {mode} did not change the {kind} tower")
        found["reload"] = max(
            found["reload"], reloaded_difference(encoder, vectors["item"], catalog)
        )
    if found["embed"] > TOLERANCE or found["reload"] > TOLERANCE:
        raise AssertionError(f"vectors differ: {found}")
    return found


def training(
    name: str, kinds: tuple[Kind, ...], checkpoint: Path, catalog: Catalog, changes: dict[str, Any]
) -> PretrainConfig:
    """Three steps of an encoder with the checkpoint's tower, or with both halves of a dual encoder."""
    if len(kinds) == 2:
        tower = replace(TowerConfig(), **changes)
        encoder = EncoderConfig(width=16, dual=str(checkpoint), text=None, image=None)
        given = {
            kind: ModalityConfig(**vars(tower), kind=kind, source=COLUMNS[kind]) for kind in kinds
        }
    else:
        encoder = EncoderConfig(width=16, text=None, image=None)
        values: dict[str, Any] = {"seconds": SECONDS, "model": str(checkpoint), **changes}
        given = {kinds[0]: ModalityConfig(kind=kinds[0], source=COLUMNS[kinds[0]], **values)}
    modalities = {f"the_{kind}": modality for kind, modality in given.items()}
    sequence = SequenceConfig(layers=1, heads=2)
    return PretrainConfig(
        catalog=CatalogConfig(path=str(catalog.folder)),
        encoder=replace(encoder, extra_modalities=modalities, sequence=sequence),
        objectives=ObjectivesConfig(bag_of_words=0.0),
        data=PretrainDataConfig(rows=4, row_length=6, held_out=0.0),
        trainer=TrainerConfig(max_steps=3, progress=False, checkpoint_every=0, log_to="csv"),
    )


def embedded(
    encoder: Path, kinds: tuple[Kind, ...], catalog: Catalog, output: Path
) -> dict[str, NDArray[np.float32]]:
    """The item vectors, and those of each tower, that `vitrine embed` writes."""
    extract = {kind: ExtractConfig(modality=f"the_{kind}") for kind in kinds}
    path = CatalogConfig(path=str(catalog.folder))
    run_embedding(EmbedConfig(encoder=str(encoder), catalog=path, extract=extract), output)
    files = {**{kind: kind for kind in kinds}, "item": "item_vectors"}
    return {
        name: np.array(open_vectors(output / f"{file}.safetensors")) for name, file in files.items()
    }


@torch.no_grad()
def reloaded_difference(encoder: Path, vectors: NDArray[np.float32], catalog: Catalog) -> float:
    """Of the artifact's encoder, loaded again as a transformers model."""
    bundle = EncoderBundle.load(encoder)
    bundle.encoder.eval()
    items: Tensor = bundle.encoder(
        bundle.content_loader(catalog).read(np.arange(catalog.num_items))
    ).item
    return largest_difference(items.numpy(), vectors)


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of two arrays' components, relative to the largest of `other` where that is above 1."""
    return float(np.abs(one - other).max() / max(1.0, float(np.abs(other).max())))


def record(rows: dict[str, dict[str, Any]]) -> None:
    listed = {name: row for name, row in rows.items() if name not in UNSEEN}
    worked = [name for name, row in listed.items() if "failed" not in row]
    write_record(
        name="models-towers",
        claim="Towers of 38 architectures and more load by path, train frozen, with LoRA and in full, embed "
        "as their own forward pass does, are planned, and reload.",
        command="python -m benchmarks.towers",
        seeds=[0],
        figures={
            "architectures": len(worked),
            "failed": ", ".join(sorted(set(listed) - set(worked))) or "none",
            "largest_difference": max(listed[name]["embed"] for name in worked),
            "largest_reload_difference": max(listed[name]["reload"] for name in worked),
            "unseen_architectures": sum("failed" not in rows[name] for name in UNSEEN),
            **{figure_name(f"unseen {name}"): rows[name].get("failed", "works") for name in UNSEEN},
            **{figure_name(f"difference {name}"): listed[name]["embed"] for name in worked},
        },
        goal=["architectures >= 38", "largest_difference <= 1e-5", 'failed == "none"'],
        sources=[
            "benchmarks/tiny_*.py",
            "pretrain/towers/*.py",
            "pretrain/modalities/*.py",
            "pretrain/hub.py",
        ],
        note="Tiny models built from configs with random weights, saved with their tokenizer, image "
        "processor or feature extractor and loaded by path. Each: a memory plan and three steps frozen, "
        "with LoRA of rank 2, and in full, on 24 items. difference: of the frozen tower's vectors, as "
        "vitrine embed writes them, from transformers' own processor and forward pass, relative to the "
        "largest component where that is above 1. unseen: architectures chosen when all others were done.",
    )


if __name__ == "__main__":
    main()
