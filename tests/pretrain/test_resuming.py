"""A killed pretraining goes on as if nothing had happened, also on another number of ranks."""

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from catalog.checksums import dumps_with_checksum
from catalog.errors import VitrineError
from pretrain.checkpoint_files import CHECKPOINT_MANIFEST, newest_checkpoint, remove_checkpoints
from pretrain.config import OptimizerConfig, PretrainConfig, PretrainDataConfig, TrainerConfig
from pretrain.work import work_folder
from tests.pretrain.runs import (
    differing_bytes,
    facts,
    largest_difference,
    losses,
    rows_learned,
    train,
)

STEPS, ROWS = 16, 4


@pytest.fixture(scope="module")
def alone(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, uninterrupted, without dropout."""
    output = tmp_path_factory.mktemp("alone") / "encoder"
    train(demo_world / "home", output)
    return output


@pytest.fixture(scope="module")
def dropping(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, uninterrupted, with dropout."""
    output = tmp_path_factory.mktemp("dropping") / "encoder"
    train(demo_world / "home", output, dropout=0.2)
    return output


def check_identical(one: Path, other: Path) -> None:
    assert differing_bytes(one, other) == 0
    curves = [(path / "curves.json").read_text() for path in (one, other)]
    assert curves[0] == curves[1]
    assert rows_learned(one) == rows_learned(other) == list(range(STEPS * ROWS))


@pytest.mark.slow
def test_killed_at_any_step_it_ends_with_the_same_bytes(
    dropping: Path, demo_world: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    kill_at = random.Random(seed).randrange(3, STEPS)  # before step 3 there is no checkpoint
    output = tmp_path / "encoder"
    train(demo_world / "home", output, killed=True, dropout=0.2, kill_at=kill_at)
    log = train(demo_world / "home", output, dropout=0.2)
    first = kill_at // 3 * 3
    assert f"resuming at step {first}\n" in log
    assert facts(output)["first_step"] == first
    check_identical(dropping, output)
    assert not list(output.with_name("encoder.work").rglob("step=*"))


@pytest.mark.slow
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(
    dropping: Path, demo_world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "encoder"
    train(demo_world / "home", output, killed=True, dropout=0.2, kill_writing=6)
    assert list(output.with_name("encoder.work").rglob("step=6.partial"))
    log = train(demo_world / "home", output, dropout=0.2, workers=1)
    assert "resuming at step 3\n" in log
    check_identical(dropping, output)


@pytest.mark.slow
def test_two_killed_ranks_end_with_the_same_bytes(demo_world: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    both: dict[str, Any] = {"strategy": "zero3", "devices": 2, "dropout": 0.2}
    train(demo_world / "home", whole, **both)
    train(demo_world / "home", broken, killed=True, kill_at=5, **both)
    train(demo_world / "home", broken, **both)
    assert facts(broken)["first_step"] == 3
    check_identical(whole, broken)


def check_other_ranks(
    strategy: str, before: int, after: int, alone: Path, world: Path, output: Path
) -> None:
    train(world, output, killed=True, strategy=strategy, devices=before, kill_at=5)
    log = train(world, output, strategy=strategy, devices=after)
    assert "resuming at step 3\n" in log
    ran = facts(output)
    assert (ran["world_size"], ran["kind"]) == (after, "whole" if strategy == "ddp" else strategy)
    assert ran["first_step"] == 3
    assert len(losses(output)) == STEPS
    assert largest_difference(output, alone) <= 1e-6
    assert rows_learned(output) == list(range(STEPS * ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_one_process_goes_on_from_two_ranks(
    strategy: str, alone: Path, demo_world: Path, tmp_path: Path
) -> None:
    check_other_ranks(strategy, 2, 1, alone, demo_world / "home", tmp_path / "encoder")


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "before", "after"), [("zero2", 2, 4), ("zero3", 1, 2)])
def test_more_ranks_go_on_from_fewer(
    strategy: str, before: int, after: int, alone: Path, demo_world: Path, tmp_path: Path
) -> None:
    check_other_ranks(strategy, before, after, alone, demo_world / "home", tmp_path / "encoder")


def folder(config: PretrainConfig, output: Path, catalog: str = "a") -> Path:
    return work_folder(output, "encoder", config, "data.rows", catalog=catalog)


def checkpoint(work: Path, world_size: int) -> Path:
    path = work / "checkpoints" / "step=7"
    path.mkdir(parents=True)
    (path / CHECKPOINT_MANIFEST).write_text(
        dumps_with_checksum({"step": 7, "world_size": world_size, "strategy": "whole"})
    )
    return path


SETTINGS = PretrainConfig(data=PretrainDataConfig(rows=12))


def on(devices: int, rows: int, **settings: Any) -> PretrainConfig:
    trainer = TrainerConfig(devices=devices, **settings)
    return replace(SETTINGS, trainer=trainer, data=PretrainDataConfig(rows=rows, workers=devices))


def test_settings_of_the_result_decide_about_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "encoder"
    mine = folder(SETTINGS, output)
    made = checkpoint(mine, world_size=1)
    same = on(4, 3, strategy="zero2", log_every=3, checkpoint_every=9, progress=False)
    assert folder(same, output) == mine
    others = [
        replace(SETTINGS, optimizer=OptimizerConfig(learning_rate=1e-9)),
        replace(SETTINGS, trainer=TrainerConfig(seed=3)),
        on(1, 6),
    ]
    assert all(newest_checkpoint(folder(other, output)) is None for other in others)
    assert newest_checkpoint(folder(SETTINGS, output, catalog="b")) is None
    assert newest_checkpoint(mine) == made
    assert asdict(SETTINGS)["data"]["rows"] == 12, "settings stay as they are"
    remove_checkpoints(mine)
    assert newest_checkpoint(mine) is None


def test_other_devices_with_another_batch_get_the_setting_that_resumes(tmp_path: Path) -> None:
    output = tmp_path / "encoder"
    checkpoint(folder(on(2, 6), output), world_size=2)
    with pytest.raises(VitrineError, match=r"2 × 6 rows a step.*set --data\.rows 3 to go on"):
        folder(on(4, 6), output)
    with pytest.raises(VitrineError, match=r"take a number of devices that divides 12"):
        folder(on(5, 6), output)
