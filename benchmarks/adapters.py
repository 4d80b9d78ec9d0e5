"""Ten domains' adapters on one loaded base: how long a swap takes, and that nothing of it is lost.

python -m benchmarks.adapters    # about 3 minutes on one core
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from benchmarks.record import write_record
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.demo import build_demo_world
from finetune.config import FinetuneConfig, FinetuneDataConfig
from finetune.domains import Domains
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.artifact import count_parameters
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.run import run_pretraining

DOMAINS = 10
SWAPS = 200
BERT = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
VIT = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3}
"""MiniLM-L6's and ViT-Tiny's shapes."""


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_record(
            "finetune-adapters",
            claim="Swapping between ten domains' adapters on one loaded base takes at most 50 ms, and "
            "each domain then ranks as if it were loaded alone.",
            command="python -m benchmarks.adapters",
            seeds=range(DOMAINS),
            figures=measure(Path(folder)),
            sources=[
                "finetune/domains.py",
                "finetune/recommender.py",
                "finetune/ranker.py",
                "pretrain/lora.py",
            ],
            goal=["slowest_swap_ms <= 50", "differing_states == 0", "differing_lists == 0"],
            note="An encoder with towers of MiniLM-L6's and ViT-Tiny's shapes, not trained; ten "
            "domains fitted with LoRA (rank 8) for three steps, each with a seed of its own; swaps in "
            "random order, the clock around putting the adapter in place. One thread. share: the "
            "adapter's file against the encoder's. load: opening a domain with its base instead.",
        )


def measure(folder: Path) -> dict[str, float]:
    world = build_demo_world(folder / "world", num_items=120, num_users=90)
    encoder = run_pretraining(
        PretrainConfig(
            catalog=CatalogConfig(path=str(world / "home")),
            encoder=EncoderConfig(
                text=TowerConfig(
                    config={"model_type": "bert", "intermediate_size": 1536, **BERT},
                    vocab_size=30_522,
                ),
                image=TowerConfig(
                    config={
                        "model_type": "vit",
                        "intermediate_size": 768,
                        "patch_size": 16,
                        **VIT,
                    }
                ),
            ),
            data=PretrainDataConfig(rows=2, max_broken=0.2),
            trainer=TrainerConfig(max_steps=1, progress=False),
        ),
        folder / "encoder",
        build_trainer,
    )
    config = FinetuneConfig(
        encoder=str(encoder),
        catalog=CatalogConfig(path=str(world / "wardrobe")),
        data=FinetuneDataConfig(rows=4, encode_items=16),
        trainer=TrainerConfig(max_steps=3, progress=False),
        validate_every=3,
    )
    names = [f"domain {number}" for number in range(DOMAINS)]
    folders = {}
    for seed, name in enumerate(names):
        seeded = replace(config, trainer=replace(config.trainer, seed=seed))
        folders[name] = run_finetuning(seeded, folder / name, build_trainer)
    catalog = load_catalog(config.catalog)
    histories = [np.asarray(catalog.interactions.history(user)) for user in range(32)]
    domains = Domains(encoder)
    for name in names:
        domains.add(name, folders[name])
    alone, loads = {}, []
    for name in names:
        started = perf_counter()
        ranker = load_ranker(folders[name], catalog)
        loads.append(perf_counter() - started)
        alone[name] = (ranker.user_states(histories), ranker.rank(histories[0], 10))
    seconds, states, lists = [], 0, 0
    order = np.random.default_rng(0).permutation(np.tile(np.arange(DOMAINS), SWAPS // DOMAINS))
    for number in order:
        ranker = domains.ranker(names[number])
        started = perf_counter()
        ranker.activate()
        seconds.append(perf_counter() - started)
        states += not torch.equal(ranker.user_states(histories), alone[names[number]][0])
        lists += ranker.rank(histories[0], 10) != alone[names[number]][1]
    adapter = folders[names[0]] / "adapter" / "adapter_model.safetensors"
    return {
        "slowest_swap_ms": 1000 * max(seconds),
        "median_swap_ms": 1000 * float(np.median(seconds)),
        "load_ms": 1000 * float(np.median(loads)),
        "swaps": len(seconds),
        "differing_states": states,
        "differing_lists": lists,
        "base_parameters": count_parameters(domains.recommender),
        "adapter_mib": adapter.stat().st_size / 2**20,
        "adapter_share": adapter.stat().st_size / (encoder / "model.safetensors").stat().st_size,
    }


if __name__ == "__main__":
    main()
