"""Adapter swap: ten domains' LoRA adapters on one loaded base, seconds per swap and equal outputs.

python -m benchmarks.adapters    # about 3 minutes on one core
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import write_record
from catalog.catalog import Catalog, load_catalog
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
    encoder = pretrain_untrained_encoder(world, folder / "encoder")
    config = FinetuneConfig(
        encoder=str(encoder),
        catalog=CatalogConfig(path=str(world / "wardrobe")),
        data=FinetuneDataConfig(rows=4, encode_items=16),
        trainer=TrainerConfig(max_steps=3, progress=False),
        validate_every=3,
    )
    adapters = finetune_domains(config, folder)
    catalog = load_catalog(config.catalog)
    histories = [np.asarray(catalog.interactions.history(user)) for user in range(32)]
    domains = Domains(encoder)
    for name, path in adapters.items():
        domains.add(name, path)
    alone, load_seconds = load_alone(adapters, catalog, histories)
    figures = swap_adapters(domains, alone, histories)
    adapter = adapters["domain 0"] / "adapter" / "adapter_model.safetensors"
    return {
        **figures,
        "load_ms": 1000 * float(np.median(load_seconds)),
        "base_parameters": count_parameters(domains.recommender),
        "adapter_mib": adapter.stat().st_size / 2**20,
        "adapter_share": adapter.stat().st_size / (encoder / "model.safetensors").stat().st_size,
    }


def pretrain_untrained_encoder(world: Path, output: Path) -> Path:
    """Pretrains an encoder for a single step; returns its artifact."""
    text = {"model_type": "bert", "intermediate_size": 1536, **BERT}
    image = {"model_type": "vit", "intermediate_size": 768, "patch_size": 16, **VIT}
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(world / "home")),
        encoder=EncoderConfig(
            text=TowerConfig(config=text, vocab_size=30_522), image=TowerConfig(config=image)
        ),
        data=PretrainDataConfig(rows=2, max_broken=0.2),
        trainer=TrainerConfig(max_steps=1, progress=False),
    )
    return run_pretraining(config, output, build_trainer)


def finetune_domains(config: FinetuneConfig, folder: Path) -> dict[str, Path]:
    """Fine-tunes one LoRA adapter for each domain, each with its own seed: name → artifact."""
    return {
        (name := f"domain {seed}"): run_finetuning(
            replace(config, trainer=replace(config.trainer, seed=seed)),
            folder / name,
            build_trainer,
        )
        for seed in range(DOMAINS)
    }


def load_alone(
    adapters: dict[str, Path], catalog: Catalog, histories: list[np.ndarray]
) -> tuple[dict[str, tuple[Tensor, Any]], list[float]]:
    """Loads each domain with its own base: name → (user states, ranked list), and seconds to load."""
    outputs, seconds = {}, []
    for name, path in adapters.items():
        started = perf_counter()
        ranker = load_ranker(path, catalog)
        seconds.append(perf_counter() - started)
        outputs[name] = (ranker.user_states(histories), ranker.rank(histories[0], 10))
    return outputs, seconds


def swap_adapters(
    domains: Domains, alone: dict[str, tuple[Tensor, Any]], histories: list[np.ndarray]
) -> dict[str, float]:
    """Swap times in random order, and number of swaps whose output differs from the domain loaded alone."""
    names = list(alone)
    seconds, states, lists = [], 0, 0
    order = np.random.default_rng(0).permutation(np.tile(np.arange(DOMAINS), SWAPS // DOMAINS))
    for number in order:
        ranker = domains.ranker(names[number])
        started = perf_counter()
        ranker.swap_adapter()
        seconds.append(perf_counter() - started)
        states += not torch.equal(ranker.user_states(histories), alone[names[number]][0])
        lists += ranker.rank(histories[0], 10) != alone[names[number]][1]
    return {
        "slowest_swap_ms": 1000 * max(seconds),
        "median_swap_ms": 1000 * float(np.median(seconds)),
        "swaps": len(seconds),
        "differing_states": states,
        "differing_lists": lists,
    }


if __name__ == "__main__":
    main()
