"""The golden runs: every stage, a few steps each, as one JSON line of digests.

python tests/golden/runs.py FOLDER

A digest is of numbers or pixels alone. Names of files, settings and curves are no part of it.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",
}
"""The environment that pins the kernels of torch, MKL, oneDNN and OpenBLAS."""


def main(folder: Path) -> None:
    from catalog.demo import build_demo_world
    from tests.stages import finetuning_of, pretrain_small

    digests: dict[str, Any] = {"machine": machine()}
    world = build_demo_world(folder / "world", num_items=80, num_users=60)
    encoder = pretrain_small(world, folder / "encoder", steps=6)
    digests["pretrain curves"] = curves(encoder)
    digests |= rankings(finetuning_of(encoder, world), folder)
    digests |= texts(folder)
    digests |= images(folder)
    print(json.dumps(digests))


def rankings(config: Any, folder: Path) -> dict[str, str]:
    """Curves, test ranks and lists of a LoRA recommender, semantic ids and two baselines."""
    from catalog.catalog import load_catalog
    from catalog.config import SplitConfig
    from finetune.baselines.run import run_baseline
    from finetune.config import MatrixFactorizationConfig
    from finetune.ranker import load_ranker
    from finetune.run import run_finetuning
    from finetune.semantic_ids.config import SemanticIdConfig
    from finetune.semantic_ids.run import run_semantic_ids
    from launch.trainer import build_trainer

    config = replace(
        config,
        split=SplitConfig(kind="leave-one-out"),
        semantic_ids=SemanticIdConfig(codebook_size=8, num_levels=2),
        matrix_factorization=MatrixFactorizationConfig(width=8, max_epochs=10),
        trainer=replace(config.trainer, log_every=1),
    )
    fitted = {
        "lora": run_finetuning(config, folder / "recommender", build_trainer),
        "semantic ids": run_semantic_ids(config, folder / "semantic", build_trainer),
    }
    for model in ("bpr-mf", "vbpr"):
        fitted[model] = run_baseline(model, config, folder / model, build_trainer)
    digests = {}
    for name, artifact in fitted.items():
        digests[f"{name} curves"] = curves(artifact)
        digests[f"{name} test ranks"] = digest([(artifact / "test_ranks.npy").read_bytes()])
    catalog = load_catalog(config.catalog)
    ranker = load_ranker(fitted["lora"], catalog)
    lists = [ranker.rank(catalog.interactions.history(user), 10) for user in range(5)]
    digests["lora lists"] = digest([repr(lists).encode()])
    return digests


def texts(folder: Path) -> dict[str, str]:
    """Curves of a text generator and what it writes, with and without verified claims."""
    from generate.text.config import TextConfig, WriteConfig
    from generate.text.run import run_text_generator
    from generate.text.writer import load_writer
    from launch.trainer import build_trainer
    from pretrain.config import TrainerConfig

    config = TextConfig(
        **inputs(folder),
        vocab_size=400,
        max_tokens=24,
        batch_size=4,
        trainer=TrainerConfig(max_steps=6, log_every=1, progress=False, accelerator="cpu"),
    )
    artifact = run_text_generator(config, folder / "text", build_trainer)
    opened = load_writer(artifact)
    users, items = opened.catalog.user_ids, opened.catalog.items["item_id"]
    texts = [
        opened.write(
            user, str(items[row]), task, WriteConfig(verify_claims=verify_claims, max_attempts=2)
        )[0].text
        for row, user in enumerate([None, str(users[0]), str(users[1])])
        for task in ("description", "review")
        for verify_claims in (False, True)
    ]
    return {
        "text curves": curves(artifact),
        "texts": digest(text.encode() for text in texts),
    }


def images(folder: Path) -> dict[str, str]:
    """Curves of an image generator and the pixels that it draws."""
    import numpy as np

    from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig, SamplingConfig
    from generate.image.loading import load_image_sampler
    from generate.image.run import run_image_generator
    from launch.trainer import build_trainer
    from pretrain.config import TrainerConfig

    config = ImageConfig(
        **inputs(folder),
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        sampling=SamplingConfig(steps=3),
        batch_size=4,
        trainer=TrainerConfig(max_steps=6, log_every=1, progress=False, accelerator="cpu"),
    )
    artifact = run_image_generator(config, folder / "image", build_trainer)
    opened = load_image_sampler(artifact)
    pictured = next(row for row in range(80) if opened.catalog.item_image(row, 32) is not None)
    user, item = str(opened.catalog.user_ids[0]), str(opened.catalog.items["item_id"][pictured])
    requests = [(None, item), (user, item), (user, None)]
    drawn = [
        *opened.sample(requests, SamplingConfig(steps=3)),
        *opened.sample([(user, item)], SamplingConfig(steps=3, mode="creative")),
    ]
    return {
        "image curves": curves(artifact),
        "images": digest(np.asarray(image).tobytes() for image in drawn),
    }


def inputs(folder: Path) -> dict[str, Any]:
    from catalog.config import CatalogConfig, SplitConfig

    return {
        "recommender": str(folder / "recommender"),
        "catalog": CatalogConfig(path=str(folder / "world" / "wardrobe")),
        "split": SplitConfig(kind="leave-one-out"),
    }


def curves(artifact: Path) -> str:
    """Digest of the learning curves' values, whatever the curves are called."""
    found = json.loads((artifact / "curves.json").read_text())
    return digest(sorted(repr(points).encode() for points in found.values()))


def digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def machine() -> list[str]:
    """What the bits may depend on besides the code: processor, Python and libraries."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = {
        line.partition(":")[2].strip() for line in lines if line.startswith(("model", "vendor"))
    }
    libraries = ("torch", "numpy", "transformers", "pillow", "opencv-python-headless")
    return [platform.python_version(), *sorted(model), *map(version, libraries)]


if __name__ == "__main__":
    os.environ.update(KERNELS)
    main(Path(sys.argv[1]))
