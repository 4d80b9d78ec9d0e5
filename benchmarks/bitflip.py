"""Checks that corruption is detected: flips one bit or truncates each kind of file that a run reads back.

python -m benchmarks.bitflip    # about 2 minutes on one core
"""

import contextlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.record import write_record
from benchmarks.sources import CHECKPOINTS
from catalog.artifacts import open_artifact
from catalog.atomic_write import list_files
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.demo import build_demo_world
from catalog.errors import VitrineError
from finetune.config import FinetuneConfig, FinetuneDataConfig
from finetune.run import run_finetuning
from launch.checkpoints import newest_valid_checkpoint
from launch.events import Events, read_events
from launch.trainer import build_trainer
from pretrain.config import (
    EmbedConfig,
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.embed import run_embedding
from pretrain.run import run_pretraining
from tests.launch.train_toy import Numbers, Toy

PLACES = 100
"""Damaged copies for each kind of damage and each kind of file."""
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class DamageTarget:
    """A folder on disk and the function that reads it back."""

    folder: Path
    files: str
    """Pattern of the files that are damaged."""
    detect: Callable[[Path], str]
    """Reads a copy of the folder; returns how the damage was detected, "" where it was not."""


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["VITRINE_CACHE"] = str(folder / "cache")
        targets = write_targets(folder)
        figures: dict[str, int] = {"places": 0, "unnoticed": 0, "unlogged_fallbacks": 0}
        rng = random.Random(0)
        for name, target in targets.items():
            figures[f"{name}_unnoticed"] = 0
            for place in range(2 * PLACES):
                with damaged(target, rng, cut=place % 2 == 1) as copy:
                    noticed = target.detect(copy)
                figures["places"] += 1
                figures[f"{name}_unnoticed"] += not noticed
                figures["unnoticed"] += not noticed
                figures["unlogged_fallbacks"] += noticed == "unlogged"
        write_record(
            "launch-bitflip",
            claim="One flipped bit, or a file cut short, is noticed wherever it is in a checkpoint, an "
            "adapter, embeddings or a converted catalog; what a run falls back to is logged.",
            command="python -m benchmarks.bitflip",
            seeds=(0,),
            figures=figures,
            sources=[
                *CHECKPOINTS,
                "catalog/artifacts.py",
                "catalog/conversion/cache.py",
                "catalog/file_hashes.py",
                "catalog/atomic_write.py",
            ],
            goal=["places >= 200", "unnoticed == 0", "unlogged_fallbacks == 0"],
            note=f"{PLACES} bits and {PLACES} cuts at random places of each of the five, their manifests "
            "and seals among them. A spoilt checkpoint is passed over for the one before, a spoilt "
            "converted catalog is made anew (both said on standard error, the former in events.jsonl, "
            "too); artifacts are refused with one line.",
        )


def write_targets(folder: Path) -> dict[str, DamageTarget]:
    """Writes a checkpoint, an adapter, embeddings and a converted catalog; returns how each is verified."""
    world = build_demo_world(folder / "world", num_items=80, num_users=60)
    quick = TrainerConfig(max_steps=2, progress=False, log_to="csv")
    encoder = pretrain_small_encoder(world, folder / "encoder", quick)
    wardrobe = CatalogConfig(path=str(world / "wardrobe"))
    config = FinetuneConfig(
        encoder=str(encoder),
        catalog=wardrobe,
        data=FinetuneDataConfig(rows=4, encode_items=8),
        trainer=quick,
        validate_every=2,
    )
    recommender = run_finetuning(config, folder / "recommender", build_trainer)
    vectors = run_embedding(EmbedConfig(encoder=str(encoder), catalog=wardrobe), folder / "vectors")
    catalog = load_catalog(wardrobe)
    converted = folder / "cache" / "catalogs"
    (histories,) = converted.glob(f"{catalog.fingerprint[:24]}*")
    (items,) = converted.glob(f"items-{catalog.content_fingerprint[:24]}*")
    run = train_with_checkpoints(folder / "run")
    return {
        "checkpoint": DamageTarget(run, "checkpoints/step=8/*", reopen_checkpoint),
        "adapter": DamageTarget(recommender, "adapter/*", reopen_artifact),
        "embeddings": DamageTarget(vectors, "*", reopen_artifact),
        "histories": DamageTarget(
            histories, "*", partial(reopen_converted_catalog, wardrobe, histories)
        ),
        "items": DamageTarget(items, "*", partial(reopen_converted_catalog, wardrobe, items)),
    }


def pretrain_small_encoder(world: Path, output: Path, trainer: TrainerConfig) -> Path:
    text = {"model_type": "bert", "intermediate_size": 128, **SMALL}
    image = {"model_type": "vit", "intermediate_size": 128, "patch_size": 16, **SMALL}
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(world / "home")),
        encoder=EncoderConfig(
            text=TowerConfig(config=text), image=TowerConfig(config=image, image_size=32)
        ),
        data=PretrainDataConfig(rows=2, max_broken=0.2),
        trainer=trainer,
    )
    return run_pretraining(config, output, build_trainer)


def train_with_checkpoints(run: Path) -> Path:
    """Runs a toy training with checkpoints at steps 4 and 8; returns its folder."""
    config = TrainerConfig(
        max_steps=8, accelerator="cpu", checkpoint_every=4, progress=False, log_to="csv"
    )
    build_trainer(config, run, "Toy").fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    return run


def reopen_checkpoint(copy: Path) -> str:
    found = newest_valid_checkpoint(copy, Events(copy))
    if found is not None and found.name == "step=8":
        return ""
    logged = any(event["event"] == "fallback" for event in read_events(copy))
    return "passed over" if logged else "unlogged"


def reopen_artifact(copy: Path) -> str:
    try:
        open_artifact(copy)
    except VitrineError as error:
        return str(error)
    return ""


def reopen_converted_catalog(config: CatalogConfig, converted: Path, copy: Path) -> str:
    """Loads the catalog with the damaged copy as its cache; returns what is logged to stderr."""
    aside = converted.with_name("aside")
    converted.rename(aside)
    shutil.copytree(copy, converted)
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        load_catalog(config)
    shutil.rmtree(converted)
    aside.rename(converted)
    return stderr.getvalue()


@contextlib.contextmanager
def damaged(target: DamageTarget, rng: random.Random, cut: bool) -> Iterator[Path]:
    """Copies the folder and damages one file of the copy: flips a random bit, or truncates it (`cut`)."""
    # Elsewhere than in the cache, which looks for items that were converted before.
    aside = Path(tempfile.mkdtemp())
    copy = aside / target.folder.name
    shutil.copytree(target.folder, copy)
    files = [p for p in list_files(copy) if p.relative_to(copy).match(target.files)]
    files = [p for p in files if p.stat().st_size and p.name != "README.md"]
    (path,) = rng.choices(files, [p.stat().st_size for p in files])
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    try:
        yield copy
    finally:
        shutil.rmtree(aside)


if __name__ == "__main__":
    main()
