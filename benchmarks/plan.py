"""Memory plan: predicted against measured memory and time of seven trainings.

python -m benchmarks.plan    # about 10 minutes on a busy core
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.record import RESULTS, write_record
from catalog.config import CatalogConfig
from catalog.demo import build_demo_world
from finetune.config import FinetuneConfig, FinetuneDataConfig
from launch.memory_plan.build import StageConfig
from launch.memory_plan.probe import probe
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

ITEMS, NUM_USERS, TAKEN = 120_000, 2_000, 60
"""Items, users and purchases per user of the shop for a recommender of ids alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--only", nargs="*", help="some of the trainings; nothing is recorded")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        for name, config in trainings(Path(folder)):
            if arguments.only and name not in arguments.only:
                continue
            seen = probe(config)
            errors.append(abs(seen.error))
            figures[f"{name}_predicted_mib"] = seen.predicted / 2**20
            figures[f"{name}_measured_mib"] = seen.measured / 2**20
            figures[f"{name}_error"] = seen.error
            summary = (
                f"{seen.predicted / 2**20:.0f} predicted, {seen.measured / 2**20:.0f} measured"
            )
            print(f"{name}: {summary} MiB, {seen.error:+.1%}", flush=True)
    if arguments.only:
        return
    write_record(
        "launch-plan",
        claim="The memory that the plan predicts, without building anything, is within 10 % of what "
        "two steps of the training take.",
        command="python -m benchmarks.plan",
        seeds=[0],
        figures={"largest_error": max(errors), "mean_error": float(np.mean(errors)), **figures},
        sources=["launch/memory_plan/*.py"],
        goal=["largest_error <= 0.10"],
        note="Peak resident memory of a fresh process during two steps, beyond what it held when all was "
        "imported; what is freed goes back to the system at once. Random weights, the demo shop's rows, "
        "texts and gaps; ids: 120,000 items known by id alone. The prediction takes the same steps with "
        "tensors that have shapes and no content; nothing in it is fitted to these figures.",
        folder=arguments.output,
    )


def trainings(folder: Path) -> Iterator[tuple[str, StageConfig]]:
    home = build_demo_world(folder / "world", num_items=400, num_users=300) / "home"
    base = PretrainConfig(
        catalog=CatalogConfig(path=str(home)),
        data=PretrainDataConfig(max_broken=0.2),
        trainer=TrainerConfig(accelerator="cpu", progress=False),
    )
    yield from pretrainings(base)
    yield from finetunings(base, folder)


def pretrainings(base: PretrainConfig) -> Iterator[tuple[str, PretrainConfig]]:
    large, small = TowerConfig(config=bert(384, 6)), TowerConfig(config=bert(128, 2))
    image = TowerConfig(config=vit(192, 4))
    both = EncoderConfig(text=TowerConfig(config=bert(256, 4)), image=image)
    text_only = EncoderConfig(text=large, image=None)
    large_image = EncoderConfig(text=small, image=TowerConfig(config=vit(384, 6)))
    frozen = EncoderConfig(text=large, image=replace(image, frozen=True))
    yield "both", replace(base, encoder=both)
    yield "text", replace(base, encoder=text_only, data=replace(base.data, rows=24))
    yield "image", replace(base, encoder=large_image, data=replace(base.data, rows=8))
    yield "frozen", replace(base, encoder=frozen, data=replace(base.data, rows=24))
    parts = replace(base.data, rows=32, num_micro_batches=4)
    yield "parts", replace(base, encoder=both, data=parts)


def finetunings(base: PretrainConfig, folder: Path) -> Iterator[tuple[str, FinetuneConfig]]:
    yield (
        "ids",
        FinetuneConfig(
            catalog=CatalogConfig(path=str(large_shop(folder / "ids"))),
            transfer="scratch",
            features="id",
            width=128,
            trainer=base.trainer,
        ),
    )
    towers = EncoderConfig(
        text=TowerConfig(config=bert(384, 6)), image=TowerConfig(config=vit(192, 4))
    )
    untrained = replace(base.trainer, max_steps=0, checkpoint_every=0)
    encoder = run_pretraining(
        replace(base, encoder=towers, trainer=untrained), folder / "encoder", build_trainer
    )
    for transfer in ("lora", "full"):
        yield (
            transfer,
            FinetuneConfig(
                encoder=str(encoder),
                catalog=base.catalog,
                transfer=transfer,
                data=FinetuneDataConfig(encode_items=96),
                trainer=base.trainer,
            ),
        )


def bert(width: int, layers: int) -> dict[str, object]:
    return {"model_type": "bert", **_sizes(width, layers)}


def vit(width: int, layers: int) -> dict[str, object]:
    return {"model_type": "vit", "patch_size": 8, **_sizes(width, layers)}


def _sizes(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


def large_shop(folder: Path) -> Path:
    """Writes a shop of items titled by number, and users with random purchases; returns its folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "items.jsonl").open("w") as file:
        for item in range(ITEMS):
            file.write(json.dumps({"item_id": f"i{item}", "title": f"item {item}"}) + "\n")
    with (folder / "interactions.tsv").open("w") as file:
        file.write("user_id\titem_id\ttimestamp\n")
        for user in range(NUM_USERS):
            for time, item in enumerate(rng.integers(ITEMS, size=TAKEN)):
                file.write(f"u{user}\ti{item}\t{time}\n")
    return folder


if __name__ == "__main__":
    main()
