"""Runs that receive a signal, that hang, and that lose a rank: how they end, and that they resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.cli import main
from launch.events import Events, read_events
from launch.graceful_stop import GracefulStop, StoppedError
from launch.submit.config import NOT_RESUMABLE, RESUMABLE
from launch.watchdog import EXIT_CODE
from pretrain.checkpoint_files import list_checkpoints

pytestmark = pytest.mark.fault

SCRIPT = Path(__file__).with_name("train_faulty.py")


def start(folder: Path, **fault: Any) -> subprocess.Popen[str]:
    launcher = [sys.executable]
    devices = fault.get("devices", 1)
    if devices > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    return subprocess.Popen(
        [*launcher, SCRIPT, folder, json.dumps(fault)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def run(folder: Path, **fault: Any) -> tuple[int, str, float]:
    """Exit status, standard error, and when it ended (seconds since the epoch)."""
    process = start(folder, **fault)
    try:
        _, stderr = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, stderr, time.time()


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "rank0.json").read_text())["losses"]


def steps_in(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder)[0] == 0
    return losses(folder)


@pytest.mark.parametrize(
    ("name", "times", "code"),
    [("SIGTERM", 1, 75), ("SIGUSR1", 1, 75), ("SIGTERM", 3, 75), ("SIGINT", 1, 130)],
)
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    name: str, times: int, code: int, whole: list[float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    status, stderr, _ = run(folder, signal=name, times=times)
    assert status == code, stderr
    assert f"vitrine: stopped by {name} after step 8; the same command resumes from there" in stderr
    assert "Traceback" not in stderr
    assert steps_in(folder) == ["step=5", "step=8"]
    (stop,) = (event for event in read_events(folder) if event["event"] == "stop")
    assert (stop["step"], stop["signal"], stop["checkpoint"]) == (8, name, True)
    assert run(folder)[0] == 0
    assert losses(folder) == whole[8:]


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path: Path) -> None:
    status, stderr, _ = run(tmp_path / "run", signal="SIGINT", times=2)
    assert status != 0
    assert steps_in(tmp_path / "run") == ["step=5"]
    assert "stopped by" not in stderr


def test_without_checkpoints_a_stopped_run_is_not_resumable(tmp_path: Path) -> None:
    """A scheduler that requeues a job at status 75 would start this one at step 0 for ever."""
    status, stderr, _ = run(tmp_path / "run", signal="SIGTERM", every=0)
    assert status == NOT_RESUMABLE != RESUMABLE
    assert "there is no checkpoint, as trainer.checkpoint_every is 0" in stderr


@pytest.mark.parametrize(
    ("asked", "written", "code"),
    [("SIGTERM", True, 75), ("SIGTERM", False, 77), ("SIGUSR1", False, 77), ("SIGINT", True, 130)],
)
def test_only_a_resumable_run_exits_with_the_resumable_status(
    asked: str, written: bool, code: int, tmp_path: Path
) -> None:
    stop, trainer = GracefulStop(Events(tmp_path)), SimpleNamespace(is_global_zero=True)
    stop.received = signal.Signals[asked]
    stopped = stop.stopped(trainer, 8, written)  # type: ignore[arg-type]
    assert stopped.code == code
    assert ("resumes from there" in str(stopped)) == written


def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, stderr, _ = run(folder, signal="SIGUSR1", rank=1, devices=2)
    assert stderr.count("vitrine: stopped by another rank's signal after step 8") == 1
    assert steps_in(folder) == ["step=5", "step=8"]
    status, stderr, _ = run(folder, devices=2)
    assert status == 0, stderr
    assert len(losses(folder)) == 8


def test_a_rank_that_is_stopped_is_named_and_the_others_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    status, stderr, ended = run(folder, signal="SIGSTOP", rank=1, devices=2, timeout=4.0, slow=0.2)
    assert status != 0
    assert "vitrine: rank 0 has not moved for" in stderr
    assert "; it waits for rank 1, last heard of at step " in stderr
    assert " in training_step" in stderr, "its stack"
    assert ended - float((folder / "happened").read_text()) < 4.0 + 5.0
    (hang,) = (event for event in read_events(folder) if event["event"] == "hang")
    assert (hang["rank"], hang["behind"], hang["step"]) == (0, 1, 7)
    status, stderr, _ = run(folder, devices=2)
    assert status == 0, stderr


def test_a_single_process_that_hangs_reports_where(tmp_path: Path) -> None:
    status, stderr, ended = run(tmp_path / "run", sleep=60, timeout=2.0)
    assert status == EXIT_CODE
    assert "rank 0 has not moved for" in stderr
    assert "on_train_batch_start" in stderr
    assert ended - float((tmp_path / "run" / "happened").read_text()) < 2.0 + 5.0


def test_a_rank_that_never_starts_is_named(tmp_path: Path) -> None:
    """The others wait for it before any step, where training has no hook yet."""
    status, stderr, _ = run(tmp_path / "run", late=60, rank=1, devices=2, timeout=1.0)
    assert status != 0
    assert "vitrine: rank 0 has not moved for 4 s (step 0, starting)" in stderr
    assert "; it waits for rank 1, which has not started" in stderr
    assert "init_process_group" in stderr, "its stack"


def test_slow_steps_are_no_hang(tmp_path: Path) -> None:
    assert run(tmp_path / "run", slow=0.7, timeout=1.4, steps=6, step=99)[0] == 0


def test_a_rank_that_dies_ends_all_ranks_and_the_run_resumes(
    whole: list[float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    status, stderr, ended = run(folder, signal="SIGKILL", rank=1, devices=2, every=4, timeout=60.0)
    assert status != 0
    assert ended - float((folder / "happened").read_text()) < 10, stderr
    status, stderr, _ = run(folder, devices=2)
    assert status == 0, stderr
    assert losses(folder) == pytest.approx(whole[4:], abs=1e-4)


def test_the_command_ends_with_the_status_that_schedulers_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: list[str]) -> None:
        raise StoppedError("stopped by SIGTERM after step 6", 75)

    monkeypatch.setattr("launch.cli.dispatch", stop)
    assert main(["pretrain"]) == 75
    assert capsys.readouterr().err == "vitrine: stopped by SIGTERM after step 6\n"


def test_a_full_disk_anywhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: list[str]) -> None:
        raise OSError(28, "No space left on device", "runs/encoder/x")

    monkeypatch.setattr("launch.cli.dispatch", full)
    assert main(["pretrain"]) == 2
    assert capsys.readouterr().err.startswith("vitrine: runs/encoder/x: No space left on device;")
