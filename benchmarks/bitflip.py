"""Flips one bit, or cuts the end off, in everything that a run reads back: is it noticed?

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
"""Of each kind of damage, in each kind of file."""
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Kept:
    """Something on disk, and how it is read back: a folder to what was noticed, or ""."""

    folder: Path
    files: str
    """A pattern: which of its files are spoilt."""
    notice: Callable[[Path], str]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VITRINE_CACHE"] = str(folder / "cache")
        kept = make(folder)
        figures: dict[str, int] = {"places": 0, "unnoticed": 0, "unlogged_fallbacks": 0}
        dice = random.Random(0)
        for what, thing in kept.items():
            figures[f"{what}_unnoticed"] = 0
            for place in range(2 * PLACES):
                with spoilt(thing, dice, cut=place % 2 == 1) as copy:
                    noticed = thing.notice(copy)
                figures["places"] += 1
                figures[f"{what}_unnoticed"] += not noticed
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
                "catalog/catalog.py",
                "catalog/atomic_write.py",
            ],
            goal=["places >= 200", "unnoticed == 0", "unlogged_fallbacks == 0"],
            note=f"{PLACES} bits and {PLACES} cuts at random places of each of the four, their manifests "
            "and seals among them. A spoilt checkpoint is passed over for the one before, a spoilt "
            "converted catalog is made anew (both said on standard error, the former in events.jsonl, "
            "too); artifacts are refused with one line.",
        )


def make(folder: Path) -> dict[str, Kept]:
    world = build_demo_world(folder / "world", num_items=80, num_users=60)
    quick = TrainerConfig(max_steps=2, progress=False, log_to="csv")
    text = {"model_type": "bert", "intermediate_size": 128, **SMALL}
    image = {"model_type": "vit", "intermediate_size": 128, "patch_size": 16, **SMALL}
    encoder = run_pretraining(
        PretrainConfig(
            catalog=CatalogConfig(path=str(world / "home")),
            encoder=EncoderConfig(
                text=TowerConfig(config=text), image=TowerConfig(config=image, image_size=32)
            ),
            data=PretrainDataConfig(rows=2, max_broken=0.2),
            trainer=quick,
        ),
        folder / "encoder",
        build_trainer,
    )
    wardrobe = CatalogConfig(path=str(world / "wardrobe"))
    shop = run_finetuning(
        FinetuneConfig(
            encoder=str(encoder),
            catalog=wardrobe,
            data=FinetuneDataConfig(rows=4, encode_items=8),
            trainer=quick,
            validate_every=2,
        ),
        folder / "shop",
        build_trainer,
    )
    vectors = run_embedding(EmbedConfig(encoder=str(encoder), catalog=wardrobe), folder / "vectors")
    run = folder / "run"
    config = TrainerConfig(
        max_steps=8, accelerator="cpu", checkpoint_every=4, progress=False, log_to="csv"
    )
    build_trainer(config, run, "Toy").fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    (converted,) = (
        path
        for path in (folder / "cache" / "catalogs").iterdir()
        if path.name.startswith(load_catalog(wardrobe).fingerprint[:24])
    )

    def of_checkpoint(copy: Path) -> str:
        found = newest_valid_checkpoint(copy, Events(copy))
        if found is not None and found.name == "step=8":
            return ""
        logged = any(event["event"] == "fallback" for event in read_events(copy))
        return "passed over" if logged else "unlogged"

    def of_artifact(copy: Path) -> str:
        try:
            open_artifact(copy)
        except VitrineError as error:
            return str(error)
        return ""

    def of_catalog(copy: Path) -> str:
        aside = converted.with_name("aside")
        converted.rename(aside)
        shutil.copytree(copy, converted)
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            load_catalog(wardrobe)
        shutil.rmtree(converted)
        aside.rename(converted)
        return told.getvalue()

    return {
        "checkpoint": Kept(run, "checkpoints/step=8/*", of_checkpoint),
        "adapter": Kept(shop, "adapter/*", of_artifact),
        "embeddings": Kept(vectors, "*", of_artifact),
        "catalog": Kept(converted, "*", of_catalog),
    }


@contextlib.contextmanager
def spoilt(thing: Kept, dice: random.Random, cut: bool) -> Iterator[Path]:
    """A copy of its folder, beside it, with one fault at a place drawn evenly over all bytes."""
    copy = thing.folder.with_name(f"{thing.folder.name}-copy")
    shutil.copytree(thing.folder, copy)
    files = [p for p in list_files(copy) if p.relative_to(copy).match(thing.files)]
    files = [p for p in files if p.stat().st_size and p.name != "README.md"]
    (path,) = dice.choices(files, [p.stat().st_size for p in files])
    content = bytearray(path.read_bytes())
    at = dice.randrange(len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(content))
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


if __name__ == "__main__":
    main()
