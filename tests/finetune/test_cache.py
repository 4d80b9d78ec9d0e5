"""What ranks keep of every item: read once among them all, and sent when it changes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from catalog.catalog import load_catalog
from finetune.cache import CacheRefresh
from finetune.config import FinetuneConfig, LoraConfig
from finetune.module import FinetuneModule
from finetune.run import run_finetuning
from launch.broadcast_buffers import constant_buffers
from tests.finetune.test_unused import Looked, Looking
from tests.stages import write_settings

SCRIPT = Path(__file__).with_name("cache_on_ranks.py")


@pytest.fixture(scope="module")
def ranks(
    settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What two ranks say after two steps of DDP with a reading of all items after each."""
    folder = tmp_path_factory.mktemp("ranks")
    trainer = replace(settings.trainer, accelerator="cpu", devices=2, strategy="ddp", max_steps=2)
    data = replace(settings.data, refresh_every=1)
    config = replace(settings, trainer=trainer, data=data, validate_every=2)
    path = write_settings(config, folder / "settings.yaml")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, str(SCRIPT), str(path), str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"run.rank{rank}.json").read_text()) for rank in range(2)]


def test_ranks_share_out_the_reading_of_the_catalog(
    ranks: list[dict[str, Any]], settings: FinetuneConfig
) -> None:
    num_items = load_catalog(settings.catalog).num_items
    one, other = (facts["read"] for facts in ranks)
    assert len(one) == len(other) >= 2
    for mine, theirs in zip(one, other, strict=True):
        assert mine + theirs == num_items
        assert abs(mine - theirs) <= 1


def test_ddp_sends_no_buffer_in_a_step(ranks: list[dict[str, Any]]) -> None:
    """Where no tower has batch norm, whose statistics are sent."""
    assert [facts["sent"] for facts in ranks] == [0, 0]


def test_ranks_without_items_take_as_many_passes(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["passes"] == [6, 6]


def test_statistics_of_batch_norm_are_still_sent() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("large", torch.zeros(9), persistent=False)
    assert [name for name, _ in constant_buffers(model)] == ["large"]


def test_dropout_of_low_rank_updates_is_at_work_in_towers_and_nothing_else_is(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    """Also after all items were read anew in the middle of training."""

    class Reading(Looking):
        def fit(self, model: FinetuneModule, datamodule: Any) -> None:
            encoder = model.recommender.encoder
            assert encoder is not None
            model.train()
            CacheRefresh(encoder, datamodule.loader)(model)
            layers = [part for part in encoder.modules() if isinstance(part, LoraLayer)]
            at_work = {one for layer in layers for one in layer.lora_dropout.modules()}
            working = {part for part in encoder.modules() if part.training}
            assert working == at_work
            assert {one.p for one in at_work if isinstance(one, nn.Dropout)} == {0.5}
            content = datamodule.brief_batch().content
            one, other = encoder(content).item, encoder(content).item
            assert torch.equal(one, other), "an update begins at zero"
            for layer in layers:
                nn.init.normal_(layer.lora_B["default"].weight)
            assert not torch.equal(encoder(content).item, encoder(content).item)
            model.eval()
            assert torch.equal(encoder(content).item, encoder(content).item)
            raise Looked

    def reading(*_: Any, **__: Any) -> Reading:
        return Reading(accelerator="cpu", logger=False, enable_checkpointing=False)

    config = replace(settings, lora=LoraConfig(rank=2, dropout=0.5))
    with pytest.raises(Looked):
        run_finetuning(config, tmp_path / "run", reading)
