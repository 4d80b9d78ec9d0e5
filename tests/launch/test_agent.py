"""The agent: restarts, signals, statuses and rendezvous of the processes of a machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.submit.agent import combined_status
from launch.submit.config import RESUMABLE
from tests.launch.submit_jobs import (
    wait_for,
)


@pytest.mark.parametrize(
    ("codes", "signalled", "status"),
    [
        ([1, -15], False, 1),
        ([-9], False, 137),
        ([75, 1], False, 75),
        ([-15, 2], False, 2),
        ([130, 130], True, 130),
        ([-15, -15], True, 75),
        ([-15], False, 143),
        ([1], True, 1),
    ],
)
def test_the_statuses_of_all_processes_are_combined(
    codes: list[int], signalled: bool, status: int
) -> None:
    assert combined_status(codes, signalled) == status


def test_the_status_of_a_stopped_training_is_that_of_the_training() -> None:
    stopping = pytest.importorskip("launch.graceful_stop")
    assert stopping.RESUMABLE == RESUMABLE


MEMBER = """
import os, signal, sys, time
from pathlib import Path
code, folder = sys.argv[1], Path(sys.argv[2])
name = os.environ["RANK"] + "-" + os.environ["TORCHELASTIC_RESTART_COUNT"]
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda got, _: ((folder / f"heard-{name}-{int(got)}").touch(), os._exit(75)))
if code == "wait":
    time.sleep(1)  # a training begins after seconds of imports, when the agent has long been listening
(folder / f"began-{name}").touch()
if code == "wait":
    time.sleep(60)
sys.exit(int(code))
"""


def start_agent(tmp_path: Path, code: object, restarts: int = 1) -> subprocess.Popen[bytes]:
    member = tmp_path / "member.py"
    member.write_text(MEMBER)
    command = [sys.executable, "-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", str(member), str(code), str(tmp_path)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def marks(folder: Path, prefix: str) -> set[str]:
    return {path.name.removeprefix(f"{prefix}-") for path in folder.glob(f"{prefix}-*")}


@pytest.mark.parametrize(("code", "starts"), [(1, {"0", "1"}), (2, {"0"}), (75, {"0"}), (0, {"0"})])
def test_only_failures_that_may_not_recur_are_restarted(
    code: int, starts: set[str], tmp_path: Path
) -> None:
    assert start_agent(tmp_path, code).wait(120) == code
    assert {name.split("-")[1] for name in marks(tmp_path, "began")} == starts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_every_process_and_nothing_is_started_again(
    number: signal.Signals, tmp_path: Path
) -> None:
    agent = start_agent(tmp_path, "wait")
    wait_for(lambda: marks(tmp_path, "began") == {"0-0", "1-0"}, 120)
    agent.send_signal(number)
    assert agent.wait(60) == 75
    assert marks(tmp_path, "heard") == {f"{rank}-0-{int(number)}" for rank in range(2)}
    assert marks(tmp_path, "began") == {"0-0", "1-0"}


MEETING = """
import os, pathlib, sys
import torch.distributed as dist
attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
dist.init_process_group("gloo")
store = dist.distributed_c10d._get_default_store()
pathlib.Path(sys.argv[1], f"found-{attempt}-{rank}-{store.check(['mine'])}").touch()
dist.barrier()
store.set("mine", "left by those before")
dist.barrier()
os._exit(0 if attempt == "2" else 1)
"""


def test_restarted_processes_find_nothing_of_earlier_ones(tmp_path: Path) -> None:
    """Otherwise they may wait for ever for the addresses of processes that have ended."""
    script = tmp_path / "meeting.py"
    script.write_text(MEETING)
    command = [sys.executable, "-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "--max-restarts=2", str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert marks(tmp_path, "found") == {f"{n}-{rank}-False" for n in range(3) for rank in range(2)}


def test_nodes_that_cannot_meet_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.submit.agent", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=nowhere.invalid:29400", "--rdzv-id=x"]
    command += ["--rdzv-conf=read_timeout=2", "none.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert (
        "vitrine: the nodes cannot meet at nowhere.invalid:29400; start the same command"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_before_the_start_ends_the_agent_quietly(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys; from launch.submit import agent; listen = agent.SignalForwarder.listen;"
        f"agent.SignalForwarder.listen = lambda self: (listen(self), os.kill(os.getpid(), {int(number)}));"
        "sys.exit(agent.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (status, b"")


TINY = """
encoder:
  width: 32
  text:
    vocab_size: 300
    config: {model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
             intermediate_size: 64}
  image:
    image_size: 32
    config: {model_type: vit, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
             intermediate_size: 64, patch_size: 16}
  sequence: {layers: 1, heads: 2}
data: {rows: 2, max_broken: 0.2}
trainer: {accelerator: cpu, max_steps: 150, checkpoint_every: 20, progress: false}
"""


@pytest.mark.slow
@pytest.mark.fault
def test_a_training_on_two_devices_stops_on_a_signal_and_resumes(
    demo_world: Path, tmp_path: Path
) -> None:
    config, output = tmp_path / "tiny.yaml", tmp_path / "my encoder"
    config.write_text(TINY)
    command = [sys.executable, "-m", "launch.cli", "launch", "pretrain", "--devices", "2"]
    command += ["--config", str(config), "--catalog.path", str(demo_world / "home")]
    command += ["--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log_path = tmp_path / "log_path"
    with log_path.open("w") as log:
        running = subprocess.Popen(command, env=environment, stderr=log)

    def checkpoints() -> list[Path]:
        assert running.poll() is None, log_path.read_text()
        return list(tmp_path.glob("my encoder.work/**/checkpoint.json"))

    try:
        wait_for(checkpoints, 240)
        running.send_signal(signal.SIGUSR1)
        assert running.wait(120) == RESUMABLE, log_path.read_text()
    finally:
        running.terminate()
        running.wait()
    assert not output.exists()
    newest = max(tmp_path.glob("my encoder.work/**/checkpoint.json"), key=os.path.getmtime)
    facts = json.loads(newest.read_text())
    assert facts["world_size"] == 2
    assert f"after step {facts['step']};" in log_path.read_text()
    again = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert f"resuming at step {facts['step']}" in again.stderr
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["config"]["trainer"]["devices"] == 2
