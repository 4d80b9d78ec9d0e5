"""Run by torchrun: every objective alone, and every one off, so that others' weights have no loss.

objectives_on_ranks.py WORLD OUTPUT STRATEGY    `module`: steps of DDP alone; else the whole stage
"""

import copy
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from catalog.splits import load_split
from launch.cli import exit_process
from launch.trainer import build_trainer
from pretrain.artifact import new_encoder
from pretrain.config import ObjectivesConfig, PretrainConfig, TowerConfig
from pretrain.data import PretrainData
from pretrain.module import PretrainModule
from pretrain.objectives import OBJECTIVES
from pretrain.run import run_pretraining

ONCE = runpy.run_path(str(Path(__file__).with_name("train_once.py")))
TRIED = OBJECTIVES.keys() - {"edges"}  # the demo has none


def settings(world: str, strategy: str) -> PretrainConfig:
    """A decoder, which any objective can do with, and a network with a norm that only its pooler has."""
    config: PretrainConfig = ONCE["settings"](world, strategy, 2)
    decoder = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    text = replace(config.encoder.text, config=decoder, pooling="last")
    staged = {"model_type": "convnext", "num_stages": 2, "hidden_sizes": [8, 8], "depths": [1, 1]}
    image = TowerConfig(config=staged, image_size=32)
    return replace(
        config,
        encoder=replace(config.encoder, text=text, image=image, modality_dropout=0.2),
        data=replace(config.data, rows=2, num_micro_batches=1),
        trainer=replace(config.trainer, max_steps=2),
    )


def combinations() -> Iterator[tuple[str, ObjectivesConfig]]:
    nothing = dict.fromkeys(OBJECTIVES, 0.0)
    for name in sorted(TRIED):
        yield f"{name} alone", ObjectivesConfig(**(nothing | {name: 1.0}))
        others = dict.fromkeys(TRIED - {name}, 1.0)
        yield f"{name} off", ObjectivesConfig(**(nothing | others))


class Step(torch.nn.Module):
    """What DDP wraps: a forward pass that is the loss."""

    def __init__(self, module: PretrainModule) -> None:
        super().__init__()
        self.module = module
        module.log = module.log_dict = lambda *_, **__: None  # type: ignore[assignment]

    def forward(self, batch: Any) -> Tensor:
        return self.module.training_step(batch, 0)


def steps_of_ddp(world: str) -> dict[str, int]:
    """Combination → how many weights learned in two steps; DDP ends where one has no gradient."""
    dist.init_process_group("gloo")
    config = settings(world, "ddp")
    catalog, split = load_split(config.catalog, config.split)
    pl.seed_everything(0, verbose=False)
    parts = new_encoder(config.encoder, catalog)
    data = PretrainData(catalog, split, parts.content_loader(catalog), config.data, seed=0)
    batch = data.collate([data.rows[2 * dist.get_rank()], data.rows[2 * dist.get_rank() + 1]])
    found = {}
    for name, objectives in combinations():
        own = copy.deepcopy(parts)
        module = PretrainModule(
            own.encoder,
            own.sequence_encoder,
            objectives,
            config.optimizer,
            data.log_popularity,
            data.duplicate_ids,
        )
        module.freeze_unused(data.brief_batch())
        wrapped = DistributedDataParallel(Step(module))
        for _ in range(2):
            wrapped(batch).backward()
        trained = [p for p in module.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained), name
        found[name] = sum(p.numel() for p in trained)
    return found


def stages(world: str, output: Path, strategy: str) -> dict[str, int]:
    """The same by the whole stage."""
    config = settings(world, strategy)
    found = {}

    def build(*arguments: Any, **options: Any) -> pl.Trainer:
        return ONCE["shard_everything"](build_trainer(*arguments, **options))

    for name, objectives in combinations():
        folder = run_pretraining(
            replace(config, objectives=objectives), output / name.replace(" ", "-"), build
        )
        manifest = json.loads((folder / "manifest.json").read_text())
        found[name] = manifest["metrics"]["parameters"]
        assert manifest["metrics"]["steps"] == 2
    return found


def main(world: str, output: str, strategy: str) -> None:
    torch.set_num_threads(1)
    folder = Path(output)
    found = steps_of_ddp(world) if strategy == "module" else stages(world, folder, strategy)
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
