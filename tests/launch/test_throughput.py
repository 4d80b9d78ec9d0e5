"""The logged figures of a run: the norm of the whole gradient before clipping, and the memory."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.launch.train_toy import Numbers, Toy


class Norms(pl.Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        squares = [(p.grad**2).sum() for p in pl_module.parameters() if p.grad is not None]
        self.found.append(float(torch.stack(squares).sum().sqrt()))


def test_figures_of_every_so_many_steps_are_logged(tmp_path: Path) -> None:
    norms = Norms()
    config = TrainerConfig(
        max_steps=6, accelerator="cpu", log_every=2, gradient_clip=1e-3, progress=False
    )
    trainer = build_trainer(config, tmp_path, "Toy", callbacks=[norms])
    trainer.fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["grad_norm"]]
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    assert [float(row["grad_norm"]) for row in rows] == pytest.approx(norms.found[1::2])
    assert all(0 < float(row["memory_gib"]) < 100 for row in rows)
