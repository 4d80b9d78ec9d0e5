"""One rank of a multi-rank run, simulated in one process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import launch.simulate.run
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from launch.memory_plan.build import build_stage
from launch.simulate.report import report
from launch.simulate.run import simulate
from pretrain.config import (
    EncoderConfig,
    ObjectivesConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.packing import StepSampler


def pretraining(world: Path, **trainer: Any) -> PretrainConfig:
    bert = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}
    return PretrainConfig(
        catalog=CatalogConfig(path=str(world / "home")),
        encoder=EncoderConfig(
            width=32,
            text=TowerConfig(
                config=bert | {"num_attention_heads": 2, "intermediate_size": 64}, vocab_size=300
            ),
            image=TowerConfig(
                config={"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 1}
                | {"num_attention_heads": 2, "intermediate_size": 64, "patch_size": 16},
                image_size=32,
            ),
            sequence=SequenceConfig(layers=1, heads=2),
        ),
        objectives=ObjectivesConfig(sigmoid=0.5),
        data=PretrainDataConfig(rows=2, row_length=8),
        trainer=TrainerConfig(**trainer),
    )


def test_eight_ranks_read_other_rows_and_all_of_them(demo_world: Path) -> None:
    found = simulate(pretraining(demo_world), nodes=2, devices=4, rank=5, steps=2)
    assert (found["ranks"], found["steps_taken"]) == (8, 2)
    assert found["disjoint"]
    assert found["covered"]
    assert found["batches_of_each_rank"] == [2]
    assert found["read_here"] == [[10, 11], [26, 27]]
    assert not dist.is_initialized()


def test_a_row_read_twice_is_found(demo_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overlapping(self: StepSampler) -> Any:
        return iter([list(range(self.rank, self.rank + self.rows)) for _ in range(self.num_steps)])

    monkeypatch.setattr(StepSampler, "__iter__", overlapping)
    found = simulate(pretraining(demo_world), nodes=1, devices=2, steps=1)
    assert not found["disjoint"]
    assert "READ TWICE" in report(found)


def test_two_ranks_read_what_one_process_of_as_many_rows_reads(demo_world: Path) -> None:
    config = pretraining(demo_world)
    both = [simulate(config, nodes=1, devices=2, rank=rank)["read_here"] for rank in (0, 1)]
    together = [one + other for one, other in zip(*both, strict=True)]
    assert together == list(StepSampler(2, 2 * config.data.rows))


def test_what_is_sent_is_counted(demo_world: Path) -> None:
    found = simulate(pretraining(demo_world, accumulate=1), nodes=1, devices=4, steps=2)
    first, second = found["traffic"]
    assert [8 * 2, 32] in first["all_gather"]["shapes"]  # this rank's item vectors
    assert first["send to the next rank"]["calls"] == 3 * 4  # three tensors round a ring of four
    for step in (first, second):
        assert step["gradient buckets (all_reduce)"]["bytes"] == 4 * found["trained"]
    assert "loss" not in report(found)


def test_checkpoints_learning_rates_and_shards_are_reported(demo_world: Path) -> None:
    config = pretraining(demo_world, max_steps=100, checkpoint_every=40, strategy="zero2")
    found = simulate(config, nodes=1, devices=4, steps=1)
    rates = found["schedule"]["learning_rate"]
    assert rates[9] == pytest.approx(1e-3)
    assert rates[99] < 1e-5 < rates[50]
    assert found["schedule"]["checkpoints"] == [40, 80]
    assert found["shards"]["optimizer"] == pytest.approx(3 * found["trained"], rel=0.02)
    assert "DeepSpeed is not simulated" in report(found)


def test_weights_that_no_loss_reaches_are_found(
    demo_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_one_too_many(*settings: Any) -> Any:
        built = build_stage(*settings)
        built.module.idle = torch.nn.Linear(2, 2)
        return built

    monkeypatch.setattr(launch.simulate.run, "build_stage", with_one_too_many)
    with pytest.raises(
        VitrineError, match=r"2 trained weights get no gradient in a step \(idle.weight"
    ):
        simulate(pretraining(demo_world), nodes=1, devices=2)


def test_worlds_that_are_none_are_refused(demo_world: Path) -> None:
    config = pretraining(demo_world)
    with pytest.raises(VitrineError, match="rank 4 is none of 4"):
        simulate(config, nodes=1, devices=4, rank=4)
    with pytest.raises(VitrineError, match="no world"):
        simulate(config, nodes=0, devices=4)
    uneven = replace(config, encoder=replace(config.encoder, width=30))
    with pytest.raises(VitrineError, match="cannot be shared by 2 attention heads"):
        simulate(uneven, nodes=1, devices=2)
