"""The watchdog ends a hanging run, names and kills the right rank, and spares one that was suspended."""

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from launch import watchdog
from launch.events import Events
from launch.graceful_stop import GracefulStop
from launch.trainer import build_trainer
from launch.watchdog import EXIT_CODE, Heartbeat, RankObserver, RankStatus, Watchdog, rank_behind
from pretrain.config import TrainerConfig
from tests.launch.train_toy import Numbers, Toy

LATE = 3.0


def statuses(*places: tuple[int, str, float]) -> list[RankStatus]:
    """Of ranks 0, 1, …: step, what they do, seconds without a sign of life."""
    return [
        RankStatus(Heartbeat(rank, step, doing), True, silent)
        for rank, (step, doing, silent) in enumerate(places)
    ]


def test_the_rank_behind_is_the_silent_one_or_the_one_least_far() -> None:
    def behind(*places: tuple[int, str, float]) -> int | None:
        found = rank_behind(statuses(*places), LATE)
        return found and found.beat.rank

    assert behind((5, "backward", 0), (5, "backward", 10), (5, "backward", 0.5)) == 1
    assert behind((5, "optimizer step", 0), (5, "optimizer step", 1), (5, "forward", 0.1)) == 2
    assert behind((5, "forward", 0), (7, "forward", 9), (6, "forward", 9)) == 2
    assert behind((5, "backward", 1), (5, "backward", 1)) is None


def test_a_rank_that_has_not_started_is_blamed_before_a_silent_one() -> None:
    late = [
        RankStatus(Heartbeat(0, 3), True, 0),
        RankStatus(Heartbeat(1, 3), True, 9),
        RankStatus(Heartbeat(2), False, 5),
    ]
    found = rank_behind(late, LATE)
    assert found is not None
    assert found.beat.rank == 2


def write(folder: Path, **facts: Any) -> None:
    folder.mkdir(exist_ok=True)
    beat = Heartbeat(**facts)
    (folder / f"{beat.rank}.json").write_text(json.dumps(asdict(beat)))


def test_others_are_judged_by_the_observers_clock_alone(tmp_path: Path) -> None:
    """Times in their heartbeat files and of the files do not matter."""
    write(tmp_path, rank=0, count=1)
    write(tmp_path, rank=1, count=8, process=1)
    others = RankObserver(tmp_path, 3)
    for now in range(10):
        if now < 4:
            write(tmp_path, rank=0, step=7, count=2 + now)
        write(tmp_path, rank=2, count=now)
        for path in tmp_path.iterdir():
            os.utime(path, (time.time() + 1e6 * now,) * 2)
        others.look(float(now))
    found = others.statuses(9.0)
    assert [each.started for each in found] == [True, False, True]
    assert [each.silent for each in found] == [6.0, 9.0, 0.0]
    assert (found[0].beat.step, found[1].beat.process) == (7, 0), "an earlier start's is not told"


HERE = "here"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(process, signal) of each that was killed; the watchdog's own end raises SystemExit."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(watchdog.os, "kill", lambda *what: found.append(what))

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(watchdog.os, "_exit", leave)
    monkeypatch.setattr(watchdog.platform, "node", lambda: HERE)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda **_: None)
    return found


def give_up(
    folder: Path, ranks: dict[int, dict[str, Any]], alive: set[int], stale: tuple[int, ...] = ()
) -> None:
    """Rank 0 reaches its timeout; `ranks` have started, `alive` of them write on until then.

    Of `stale` ranks there is what an earlier start left.
    """
    events = Events(folder)
    dog = Watchdog(folder, 30.0, GracefulStop(events), events, 0)
    dog.folder.mkdir(parents=True)
    dog.ranks = 4
    for rank in stale:
        write(dog.folder, rank=rank, step=7, host=HERE, process=100 + rank, count=9)
    dog.others, dog.clock, dog.progress_at, dog.progress_seen = (
        RankObserver(dog.folder, 4),
        0.0,
        0.0,
        0,
    )
    dog.report_progress("forward", 7)
    for count in range(60):
        for rank, facts in ranks.items():
            if rank in alive or count < 2:
                write(dog.folder, rank=rank, count=count, process=100 + rank, **facts)
        dog._tick(1.0)


@pytest.mark.parametrize("silent", [1, 2, 3])
def test_the_silent_rank_is_named_and_killed_and_no_other(
    silent: int, tmp_path: Path, killed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"step": 7, "doing": "backward", "host": HERE}
    with pytest.raises(SystemExit, match=str(EXIT_CODE)):
        give_up(tmp_path, dict.fromkeys((1, 2, 3), facts), {1, 2, 3} - {silent})
    assert killed == [(100 + silent, signal.SIGKILL)]
    assert f"; it waits for rank {silent}, last heard of at step 7, backward" in (
        capsys.readouterr().err
    )


def test_a_rank_that_is_behind_but_alive_is_named_and_not_killed(
    tmp_path: Path, killed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = {rank: {"step": 7, "doing": "backward", "host": HERE} for rank in (1, 2, 3)}
    ranks[2]["step"] = 6
    with pytest.raises(SystemExit):
        give_up(tmp_path, ranks, {1, 2, 3})
    assert not killed
    assert "; it waits for rank 2, last heard of at step 6" in capsys.readouterr().err


def test_a_process_of_another_machine_or_another_start_is_not_killed(
    tmp_path: Path, killed: list[Any]
) -> None:
    """Its process id may be another process's here."""
    facts = {"step": 7, "doing": "backward"}
    elsewhere = {rank: {**facts, "host": HERE if rank != 2 else "there"} for rank in (1, 2, 3)}
    with pytest.raises(SystemExit):
        give_up(tmp_path / "elsewhere", elsewhere, {1, 3})
    with pytest.raises(SystemExit):
        give_up(tmp_path / "stale", {1: elsewhere[1], 3: elsewhere[3]}, {1, 3}, stale=(2,))
    assert not killed


class Jump(pl.Callback):
    """In one step the clock that `name` names advances by an hour, and then a little time passes."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.patch = name, monkeypatch

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 3:
            time.sleep(0.5)  # so that the watch has seen this step begin
            real = getattr(time, self.name)
            self.patch.setattr(time, self.name, lambda: real() + 3600)
            time.sleep(0.5)


@pytest.mark.parametrize("clock", ["time", "monotonic"])
def test_an_hour_asleep_or_a_clock_that_is_set_is_no_hang(
    clock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired: list[Any] = []
    monkeypatch.setattr(Watchdog, "_give_up", lambda self, *what: fired.append(what))
    config = TrainerConfig(max_steps=6, accelerator="cpu", hang_timeout=2.0, progress=False)
    trainer = build_trainer(config, tmp_path, "Toy", callbacks=[Jump(clock, monkeypatch)])
    trainer.fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    assert trainer.global_step == 6
    assert not fired


def test_a_step_that_does_not_end_is_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the watchdog of the test above does fire where a step hangs."""
    fired: list[float] = []
    monkeypatch.setattr(Watchdog, "_give_up", lambda self, still, _: fired.append(still))

    class Stand(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
            time.sleep(0.8 if trainer.global_step == 3 else 0)

    config = TrainerConfig(max_steps=4, accelerator="cpu", hang_timeout=0.3, progress=False)
    trainer = build_trainer(config, tmp_path, "Toy", callbacks=[Stand()])
    trainer.fit(Toy(), DataLoader(Numbers(0, 1), batch_size=None))
    assert fired
    assert 0.3 < fired[0] < 0.8
