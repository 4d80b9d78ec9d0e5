"""Checkpoints hold what was written; a corrupt one is skipped and reported."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from catalog.errors import VitrineError
from launch import checkpoints
from launch.checkpoints import StateFile, checkpoint_fault, newest_valid_checkpoint
from launch.events import Events, read_events
from launch.trainer import build_trainer
from pretrain.checkpoint_files import CHECKPOINT_MANIFEST, list_checkpoints
from pretrain.config import TrainerConfig
from tests.launch.train_toy import Numbers, Record, Toy


def train(folder: Path, steps: int = 12, every: int = 4, **settings: Any) -> list[float]:
    """The losses, from where it resumed."""
    config = TrainerConfig(
        max_steps=steps, accelerator="cpu", checkpoint_every=every, progress=False, **settings
    )
    record = Record()
    trainer = build_trainer(config, folder, "Toy", callbacks=[record])
    trainer.fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    return record.losses


def steps_in(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    train(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("background", [False, True])
def test_the_newest_checkpoints_are_kept_whole_and_resumed_from(
    background: bool, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", 16)
    folder = tmp_path / "run"
    train(folder, 12, async_checkpoint=background, checkpoint_keep=2)
    assert steps_in(folder) == ["step=8", "step=12"]
    assert [checkpoint_fault(path) for path in list_checkpoints(folder)] == ["", ""]
    assert train(folder, 16, async_checkpoint=background) == whole[12:]
    happened = [event["event"] for event in read_events(folder)]
    assert happened == ["start", *["checkpoint"] * 3, "end", "resume", "start", "checkpoint", "end"]
    assert not [p for p in (folder / "checkpoints").iterdir() if p.suffix]


def test_one_written_in_the_background_holds_the_state_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the thread comes to write it."""
    train(tmp_path / "whole", 8)
    complete = checkpoints.save_state

    def late(state: dict[str, Any], path: Path) -> None:
        import time

        time.sleep(0.3)
        complete(state, path)

    monkeypatch.setattr(checkpoints, "save_state", late)
    train(tmp_path / "run", 8, async_checkpoint=True, checkpoint_keep=5)
    for step in (4, 8):
        one, other = (
            torch.load(tmp_path / name / f"checkpoints/step={step}/state", weights_only=True)
            for name in ("whole", "run")
        )
        for name, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][name])


FAULTS = ["state: a bit", "state: its end", "state: gone", "facts: a bit", "facts: gone"]


def damage(checkpoint: Path, fault: str, dice: random.Random) -> None:
    which, what = fault.split(": ")
    file = checkpoint / ("state" if which == "state" else CHECKPOINT_MANIFEST)
    if what == "gone":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    if what == "its end":
        content = content[: dice.randrange(len(content))]
    else:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_corrupt_checkpoint_is_skipped_and_named(
    fault: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tmp_path / "whole", 16)
    for seed in range(20):
        folder = tmp_path / f"copy-{seed}"
        shutil.copytree(trained, folder)
        damage(folder / "checkpoints" / "step=12", fault, random.Random(seed))
        found = newest_valid_checkpoint(folder, Events(folder))
        assert found is not None
        assert found.name == "step=8", f"{fault}, seed {seed}"
        assert "skipped a corrupt checkpoint" in capsys.readouterr().err
    assert train(folder, 16) == whole[8:]
    assert [e["skipped"] for e in read_events(folder) if e["event"] == "fallback"] == (
        ["step=12"] * 2
    )
    assert steps_in(folder) == ["step=12", "step=16"]
    assert checkpoint_fault(folder / "checkpoints" / "step=12") == ""


def test_where_no_checkpoint_is_valid_none_is_deleted(trained: Path) -> None:
    for checkpoint in list_checkpoints(trained):
        (checkpoint / "state").write_bytes(b"")
    with pytest.raises(VitrineError, match=r"no checkpoint in .* is what was written \(.*step=12"):
        train(trained, 16)
    assert steps_in(trained) == ["step=8", "step=12"]


def test_what_killed_writers_left_is_swept(trained: Path) -> None:
    for name in ("step=16.partial", "step=4.gone"):
        (trained / "checkpoints" / name / "state").mkdir(parents=True)
    train(trained, 16)
    assert sorted(p.name for p in (trained / "checkpoints").iterdir()) == ["step=12", "step=16"]


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_one_line_with_path_and_bytes(
    background: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, written = checkpoints.save_state, []

    def full(state: dict[str, Any], path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"some of it")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(checkpoints, "save_state", full)
    with pytest.raises(
        VitrineError,
        match=r"cannot write the checkpoint .*step=8: .*No space.*needs about [1-9][\d,]+ bytes.*"
        r"step=4 stands; make room",
    ):
        train(tmp_path / "run", 12, async_checkpoint=background)
    assert steps_in(tmp_path / "run") == ["step=4"]
    whole = train(tmp_path / "whole", 12)
    assert train(tmp_path / "run", 12) == whole[4:]


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "state")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        StateFile().load_checkpoint(tmp_path / "state")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint_keep": 0}, "trainer.checkpoint_keep is 0; give 1 or more"),
        ({"hang_timeout": -1.0}, "trainer.hang_timeout is -1; give 0 or more"),
        ({"async_checkpoint": True, "strategy": "zero2"}, "under zero2 every rank writes"),
        ({"log_to": "csv,tensorbord"}, "log_to names 'tensorbord'. Did you mean 'tensorboard'"),
        ({"log_to": "wandb"}, "log_to names wandb, which is not installed; pip install wandb"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VitrineError, match=message):
        build_trainer(TrainerConfig(accelerator="cpu", **settings), tmp_path, "Toy")


def test_figures_are_written_for_tensorboard_and_as_csv(trained: Path) -> None:
    assert "loss" in (trained / "metrics.csv").read_text().splitlines()[0]
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_events_are_one_line_each_and_a_truncated_one_is_skipped(tmp_path: Path) -> None:
    events = Events(tmp_path, rank=3)
    events.write("checkpoint", step=5)
    with events.path.open("a") as file:
        file.write('{"time": "2026-0')
    (found,) = read_events(tmp_path)
    assert (found["event"], found["rank"], found["step"]) == ("checkpoint", 3, 5)
    assert json.loads(events.path.read_text().splitlines()[0]) == found


def test_no_checkpoint_is_written_where_checkpoint_every_is_0(tmp_path: Path) -> None:
    train(tmp_path / "run", every=0)
    assert not (tmp_path / "run" / "checkpoints").exists()
