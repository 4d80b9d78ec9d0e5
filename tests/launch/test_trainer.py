"""The Trainer every stage is given: sharded equals single, resumed equals uninterrupted, quiet."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.strategies import DeepSpeedStrategy

from catalog.checksums import dumps_with_checksum
from catalog.errors import VitrineError
from launch.strategies import CpuDeepSpeedStrategy, make_strategy
from launch.trainer import build_trainer
from pretrain.checkpoint_files import CHECKPOINT_MANIFEST, newest_checkpoint
from pretrain.config import TrainerConfig

TOY = Path(__file__).with_name("train_toy.py")


def train(strategy: str, devices: int, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Facts from each rank, and what was printed."""
    launcher = [sys.executable]
    if devices > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    folder.mkdir()
    result = subprocess.run(
        [*launcher, TOY, strategy, str(devices), folder / "run"],
        env=os.environ | {"TORCH_EXTENSIONS_DIR": str(folder / "compiled"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    ranks = range(devices)
    facts = [json.loads((folder / "run" / f"rank{rank}.json").read_text()) for rank in ranks]
    return facts, result.stdout + result.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[dict[str, Any], str]:
    """One process, uninterrupted."""
    (facts,), printed = train("auto", 1, tmp_path_factory.mktemp("alone") / "auto")
    return facts, printed


@pytest.mark.parametrize(
    ("strategy", "engine"),
    [
        pytest.param("ddp", "DistributedDataParallel", marks=pytest.mark.slow),
        pytest.param("zero1", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("zero2", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("zero3", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("zero2-offload", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("zero3-offload", "DeepSpeedEngine", marks=pytest.mark.slow),
    ],
)
def test_two_processes_interrupted_halfway_learn_what_one_does(
    strategy, engine, alone, tmp_path
) -> None:
    expected, _ = alone
    facts, printed = train(strategy, 2, tmp_path / strategy)

    for rank in facts:
        assert (rank["world_size"], rank["engine"]) == (2, engine)
        assert rank["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    assert expected["losses"][-1] < expected["losses"][0] / 1.5
    assert printed.count("Toy: step 16/16") == 1, "one rank reports"
    assert not (tmp_path / strategy / "compiled").exists(), "no operator needs a compiler"


def test_training_prints_its_progress_and_nothing_else(alone) -> None:
    _, printed = alone
    (line,) = printed.splitlines()
    assert line.startswith("Toy: step 16/16 · loss ")


def test_the_latest_checkpoints_are_kept(alone) -> None:
    facts, _ = alone
    assert facts["checkpoints"] == ["step=12", "step=16"]


def test_an_unfinished_checkpoint_is_not_resumed_from(tmp_path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name in ("step=5", "step=10", "step=20.partial"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        step = int(name.removeprefix("step=").removesuffix(".partial"))
        (folder / CHECKPOINT_MANIFEST).write_text(dumps_with_checksum({"step": step}))
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step=10"


def test_a_checkpoint_of_another_strategy_is_refused(tmp_path) -> None:
    folder = tmp_path / "checkpoints" / "step=5"
    folder.mkdir(parents=True)
    facts = {"step": 5, "world_size": 2, "strategy": "zero2", "files": {}}
    (folder / CHECKPOINT_MANIFEST).write_text(dumps_with_checksum(facts))
    trainer = build_trainer(TrainerConfig(accelerator="cpu"), tmp_path, "Toy")
    with pytest.raises(VitrineError, match=r"under strategy zero2; .* afresh with auto or ddp"):
        trainer.fit(pl.LightningModule())


def test_another_number_of_processes_than_settings_ask_for_is_refused(monkeypatch) -> None:
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VitrineError, match=r"set --trainer\.devices 2 --trainer\.nodes 2"):
        make_strategy(TrainerConfig(strategy="zero2", accelerator="cpu"))


def test_on_gpus_zero_keeps_lightnings_checks() -> None:
    strategy = make_strategy(TrainerConfig(strategy="zero3-offload", accelerator="gpu"))
    assert isinstance(strategy, DeepSpeedStrategy)
    assert not isinstance(strategy, CpuDeepSpeedStrategy)
    zero = strategy.config["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"


def test_a_stage_may_add_options_of_its_own(tmp_path) -> None:
    config = TrainerConfig(accelerator="cpu", gradient_clip=0, progress=False)
    trainer = build_trainer(config, tmp_path, "Toy", limit_val_batches=3)
    assert trainer.limit_val_batches == 3
    assert trainer.gradient_clip_val is None
