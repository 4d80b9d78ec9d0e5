"""Run by torchrun or alone: trains a toy model in two halves and writes what came of it.

    train_toy.py STRATEGY DEVICES OUTPUT

With more than one device the second half resumes from the checkpoint of the first.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from launch.cli import exit_process
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig

STEPS = 16
BATCHES = 4  # divides half the steps: resuming then begins with the first batch again


class Numbers(IterableDataset):
    """The same four batches over and over; each rank reads its share of each."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        random = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(BATCHES, 16, 8, generator=random)[:, rank::num_ranks]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from ((inputs, inputs[:, :1] ** 2) for inputs in self.inputs)


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Record(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.engine = ""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.losses.append(float(trainer.callback_metrics["loss"]))
        self.engine = type(trainer.strategy.model).__name__


def main(strategy: str, devices: str, output: str) -> None:
    torch.set_num_threads(1)
    folder, record = Path(output), Record()
    halves = [STEPS // 2, STEPS] if int(devices) > 1 else [STEPS]
    for max_steps in halves:
        config = TrainerConfig(
            max_steps=max_steps,
            accelerator="cpu",
            devices=int(devices),
            strategy=strategy,
            log_every=1,
            checkpoint_every=STEPS // 4,
        )
        trainer = build_trainer(config, folder, "Toy", callbacks=[record])
        numbers = Numbers(trainer.global_rank, trainer.world_size)
        loader = DataLoader(numbers, batch_size=None)
        trainer.fit(Toy(), loader)
    facts = {
        "world_size": trainer.world_size,
        "engine": record.engine,
        "losses": record.losses,
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
