"""The SLURM script: requeueing, signals, arguments and arrays, run by bash with stubs of SLURM."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.submit.config import RESUMABLE, Job
from launch.submit.slurm import batch_script
from tests.launch.submit_jobs import (
    ASKED,
    HARD_WORDS,
    JOB,
    SWEEP,
    calls,
    wait_for,
)

STUB = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
Path("words").write_text(json.dumps(sys.argv[1:]))
signal.signal(signal.SIGUSR1, lambda *_: (Path("heard").touch(), os._exit(75)))
Path("began").touch()
if "KEEP" in os.environ:
    Path(os.environ["VITRINE_PROGRESS_FILE"]).touch()
if os.environ["CODE"] == "wait":
    time.sleep(60)
os._exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def batch(shims: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a batch script in which the training is a stub that ends with `code`."""
    stub = Path("a stub's python")
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    Path(ASKED.work).mkdir(parents=True)

    def start(code: object, job: Job = JOB, **environment: str) -> subprocess.Popen[str]:
        text = batch_script(job, ASKED, str(stub.resolve()), Path.cwd())
        Path("job.sbatch").write_text(text)
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "first", "CODE": str(code)}
        return subprocess.Popen(
            ["bash", "job.sbatch"], env={**os.environ, **slurm, **environment}, text=True
        )

    return start


@pytest.mark.parametrize("code", [0, 1, 2, 75, 77, 127, 143])
def test_only_a_resumable_job_is_requeued(code: int, batch: Any) -> None:
    assert batch(code).wait(30) == code
    found = [line for line in calls("scontrol") if "requeue" in line]
    assert found == (["scontrol requeue 7"] if code == RESUMABLE else [])


def test_a_cancelled_job_is_not_requeued(batch: Any) -> None:
    assert batch(75, STATE="COMPLETING").wait(30) == 75
    assert not [line for line in calls("scontrol") if "requeue" in line]


def requeued() -> int:
    return len([line for line in calls("scontrol") if "requeue" in line])


def test_a_job_is_requeued_at_most_so_often(batch: Any) -> None:
    assert batch(75, KEEP="1", SLURM_RESTART_COUNT="99").wait(30) == 75
    assert requeued() == 1
    assert batch(75, KEEP="1", SLURM_RESTART_COUNT="100").wait(30) == 75
    assert requeued() == 1


def test_a_job_without_progress_twice_in_a_row_is_not_requeued(
    batch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for keeps, expected in ((True, 1), (False, 2), (True, 3), (True, 4), (False, 5), (False, 5)):
        assert batch(75, **({"KEEP": "1"} if keeps else {})).wait(30) == 75
        assert requeued() == expected
    assert "stopped twice before anything was kept; not queued again" in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_batch_shell_reaches_the_training(
    number: signal.Signals, batch: Any
) -> None:
    running = batch("wait")
    wait_for(Path("began").exists)
    running.send_signal(number)
    assert running.wait(30) == 75
    assert Path("heard").exists()
    assert [line for line in calls("scontrol") if "requeue" in line]


def test_every_word_reaches_the_training_as_it_was_given(batch: Any) -> None:
    assert batch(0, replace(JOB, runs=(HARD_WORDS,))).wait(30) == 0
    words = json.loads(Path("words").read_text())
    assert tuple(words[-len(HARD_WORDS) :]) == HARD_WORDS
    assert "--rdzv-endpoint=first:20007" in words
    assert "--rdzv-id=7" in words


def test_each_task_of_an_array_runs_its_own(batch: Any) -> None:
    for task in range(2):
        assert batch(0, SWEEP, SLURM_ARRAY_TASK_ID=str(task)).wait(30) == 0
        assert json.loads(Path("words").read_text())[-1] == f"out-{task}"
