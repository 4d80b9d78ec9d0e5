"""What no active loss reads is frozen, so that every weight that learns has a gradient on every rank."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from pretrain.unused_parameters import freeze_unused

SCRIPT = Path(__file__).with_name("objectives_on_ranks.py")


class Odd(pl.LightningModule):
    """Reads one of its linear layers, through dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.unread = nn.Linear(3, 3), nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.norm.eval()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.dropout(self.norm(self.frozen(self.read(batch)))).sum()
        self.log("loss", loss)
        return loss


def test_what_the_loss_does_not_read_is_frozen_and_nothing_else_changes() -> None:
    module = Odd()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batch, random_state = torch.randn(2, 3), torch.get_rng_state()
    assert freeze_unused(module, batch) == ["unread.weight", "unread.bias"]
    assert torch.equal(torch.get_rng_state(), random_state)
    learns = {name for name, p in module.named_parameters() if p.requires_grad}
    assert learns == {"read.weight", "read.bias", "norm.weight", "norm.bias"}
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert module.training
    assert not module.norm.training
    assert freeze_unused(module, batch) == []


def on_two_ranks(world: Path, output: Path, strategy: str, timeout: int) -> dict[str, Any]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, str(SCRIPT), str(world), str(output), strategy],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((output / "found.json").read_text())


def test_any_objective_alone_or_off_trains_under_ddp(demo_world: Path, tmp_path: Path) -> None:
    found = on_two_ranks(demo_world / "home", tmp_path, "module", 120)
    tried = runpy.run_path(str(SCRIPT))["TRIED"]
    assert len(found) == 2 * len(tried)
    assert found["language_modeling alone"] < found["cross_modal alone"] < found["next_item alone"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_any_objective_alone_or_off_trains_under_each_strategy(
    strategy: str, demo_world: Path, tmp_path: Path
) -> None:
    on_two_ranks(demo_world / "home", tmp_path, strategy, 900)
