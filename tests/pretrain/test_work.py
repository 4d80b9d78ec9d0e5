"""What a stage finds under way: its own request goes on, another's is reported and kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from catalog.artifacts import open_artifact
from catalog.checksums import dumps_with_checksum
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from launch.trainer import build_trainer
from pretrain.checkpoint_files import (
    CHECKPOINT_MANIFEST,
    list_checkpoints,
    newest_checkpoint,
    remove_checkpoints,
)
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.request import result_settings
from pretrain.run import run_pretraining
from pretrain.work import check_claimed, claim_work, work_folder
from tests.stages import SMALL

SETTINGS = PretrainConfig(
    data=PretrainDataConfig(rows=12), trainer=TrainerConfig(max_steps=20, progress=False)
)
Capture = pytest.CaptureFixture[str]


def folder(config: PretrainConfig, output: Path, catalog: str = "a") -> Path:
    return work_folder(output, "encoder", config, "data.rows", catalog=catalog)


def checkpoint(work: Path, step: int = 7) -> Path:
    path = work / "checkpoints" / f"step={step}"
    path.mkdir(parents=True)
    (path / CHECKPOINT_MANIFEST).write_text(
        dumps_with_checksum({"step": step, "world_size": 1, "strategy": "whole"})
    )
    return path


def steps(number: int) -> PretrainConfig:
    return replace(SETTINGS, trainer=replace(SETTINGS.trainer, max_steps=number))


def rows(number: int) -> PretrainConfig:
    return replace(SETTINGS, data=PretrainDataConfig(rows=number))


def test_what_another_request_left_is_reported_with_the_difference_and_kept(
    tmp_path: Path, capsys: Capture
) -> None:
    made = checkpoint(folder(SETTINGS, tmp_path / "encoder"))
    assert not capsys.readouterr().err
    other = replace(rows(6), optimizer=replace(SETTINGS.optimizer, learning_rate=0.5))
    work = folder(other, tmp_path / "encoder", catalog="b")
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{made.parents[1]} holds step=7 of another request (" in message
    assert "data.rows 12 → 6" in message
    assert "optimizer.learning_rate 0.001 → 0.5" in message
    assert "the catalog" in message
    assert "it is kept, and this one begins at step 0" in message
    checkpoint(work)
    remove_checkpoints(work)
    assert newest_checkpoint(made.parents[1]) == made, "what is done clears its own alone"
    assert newest_checkpoint(work) is None


def test_a_request_that_goes_on_says_nothing_of_others(tmp_path: Path, capsys: Capture) -> None:
    checkpoint(folder(SETTINGS, tmp_path / "encoder"))
    checkpoint(folder(rows(6), tmp_path / "encoder"))
    capsys.readouterr()
    folder(SETTINGS, tmp_path / "encoder")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("number", [40, 8])
def test_another_length_goes_on_and_says_so(number: int, tmp_path: Path, capsys: Capture) -> None:
    made = checkpoint(folder(SETTINGS, tmp_path / "encoder"))
    assert newest_checkpoint(folder(steps(number), tmp_path / "encoder")) == made
    message = capsys.readouterr().err
    assert f"goes on from {made}, of a run of 20 steps, to {number}" in message
    assert f"the learning rate follows the schedule of {number} steps from there" in message
    folder(steps(number), tmp_path / "encoder")
    assert not capsys.readouterr().err, "said once"


def test_a_length_that_is_past_already_is_refused(tmp_path: Path) -> None:
    made = checkpoint(folder(SETTINGS, tmp_path / "encoder"))
    with pytest.raises(
        VitrineError, match=r"a run of 20 steps, and trainer\.max_steps is 7; give more"
    ):
        folder(steps(7), tmp_path / "encoder")
    assert newest_checkpoint(made.parents[1]) == made
    assert folder(SETTINGS, tmp_path / "encoder") == made.parents[1], "as before it goes on"


def test_where_things_lie_is_no_setting(tmp_path: Path) -> None:
    def at(path: str) -> dict[str, Any]:
        base_settings = {
            "catalog": {"path": path, "source": "folder"},
            "encoder": path,
            "text": {"width": 8},
        }
        return result_settings({**base_settings, "vectors": path})

    assert at("runs/shop") == at("/home/ada/runs/shop")
    assert at("runs/shop") != at(""), "whether there is one is"
    assert at("x")["text"] == {"width": 8}


def test_blocks_of_another_request_are_put_aside_and_taken_back(
    tmp_path: Path, capsys: Capture
) -> None:
    work = tmp_path / "x.work"
    claim_work(work, "one")
    (work / "part-0.parquet").write_text("of one")
    claim_work(work, "one")
    assert not capsys.readouterr().err
    claim_work(work, "other")
    assert not (work / "part-0.parquet").exists()
    assert f"it is kept in {tmp_path / 'x.one.work'}" in capsys.readouterr().err
    (work / "part-0.parquet").write_text("of the other")
    claim_work(work, "one")
    assert (work / "part-0.parquet").read_text() == "of one"
    assert (tmp_path / "x.other.work" / "part-0.parquet").read_text() == "of the other"


def test_a_rank_that_sees_another_folder_than_rank_zero_is_named(tmp_path: Path) -> None:
    claim_work(tmp_path / "x.work", "one")
    check_claimed(tmp_path / "x.work", "one", 1)
    for work, request in ((tmp_path / "y.work", "one"), (tmp_path / "x.work", "other")):
        with pytest.raises(VitrineError, match=r"rank 1 does not find in .* one shared folder"):
            check_claimed(work, request, 1)


class Stop(pl.Callback):
    """Ends a run before its fifth step; later runs begin where this says."""

    def __init__(self) -> None:
        self.start_steps: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start_steps.append(trainer.global_step)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(self.start_steps) == 1 and trainer.global_step == 4:
            raise InterruptedError


def test_a_stopped_run_outlives_one_with_another_batch_and_goes_on_to_more_steps(
    demo_world: Path, tmp_path: Path, capsys: Capture
) -> None:
    text = TowerConfig(
        config={"model_type": "bert", "intermediate_size": 64, **SMALL}, vocab_size=300
    )
    sequence = SequenceConfig(layers=1, heads=2, max_history=8)
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(demo_world / "home")),
        encoder=EncoderConfig(width=32, text=text, image=None, sequence=sequence),
        data=PretrainDataConfig(rows=4, row_length=8),
        trainer=TrainerConfig(max_steps=6, checkpoint_every=2, progress=False),
    )
    output, stop = tmp_path / "encoder", Stop()

    def build(*arguments: Any, callbacks: Any) -> pl.Trainer:
        return build_trainer(*arguments, callbacks=[*callbacks, stop])

    with pytest.raises(InterruptedError):
        run_pretraining(config, output, build)
    (first,) = (tmp_path / "encoder.work").iterdir()
    assert [path.name for path in list_checkpoints(first)] == ["step=2", "step=4"]
    smaller = replace(config, data=replace(config.data, rows=2))
    run_pretraining(smaller, output, build)
    assert "holds step=4 of another request (data.rows 4 → 2)" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(first)] == ["step=2", "step=4"]
    longer = replace(config, trainer=replace(config.trainer, max_steps=8))
    run_pretraining(longer, output, build)
    assert stop.start_steps == [0, 0, 4]
    assert open_artifact(output).manifest["metrics"]["steps"] == 8
    assert not list_checkpoints(first)
