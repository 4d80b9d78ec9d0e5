"""Run by torchrun: what weights and the optimiser take on this rank, by strategy and precision.

bytes_on_ranks.py SETTINGS OUTPUT    # fine-tuning's, as YAML
"""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from finetune.config import FinetuneConfig
from finetune.run import run_finetuning
from launch.cli import exit_process
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.optim import innermost

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


class Measured(Exception):
    """Ends a run after its second step."""


class Measure(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any, **__: Any) -> None:
        if trainer.global_step < 2:
            return
        optimizer = innermost(trainer.optimizers[0])
        state = [x for values in optimizer.state.values() for x in values.values()]
        sharded: Any = getattr(trainer.strategy.model, "optimizer", None)  # DeepSpeed's
        names = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat")
        master = [p for name in names for p in getattr(sharded, name, [])]
        weights = [getattr(p, "ds_tensor", p) for p in module.parameters()]
        raise Measured(
            {
                "weights": sum(p.nbytes for p in weights),
                "optimizer": sum(x.nbytes for x in (*master, *state)),
            }
        )


def main(settings: str, output: str) -> None:
    torch.set_num_threads(1)
    given = load_settings(FinetuneConfig, Path(settings), [])
    found = {}
    for strategy, precision in itertools.product(STRATEGIES, PRECISIONS):
        trainer = replace(given.trainer, strategy=strategy, precision=precision)
        name = f"{strategy} {precision}"

        def build(config: Any, folder: Path, title: str, callbacks: Any) -> pl.Trainer:
            return build_trainer(config, folder, title, callbacks=[*callbacks, Measure()])

        try:
            run_finetuning(replace(given, trainer=trainer), Path(output) / name, build)
        except Measured as measured:
            found[name] = measured.args[0]
    if dist.get_rank() == 0:
        Path(output, "bytes.json").write_text(json.dumps(found))
    dist.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
