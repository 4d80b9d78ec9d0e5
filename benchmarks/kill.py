"""Checkpoint durability: kills the writer at every system call of a save, fills the disk at every write.

python -m benchmarks.kill    # launch-kill and launch-disk-full; needs strace, and root for a tmpfs
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.record import write_record
from benchmarks.sources import CHECKPOINTS
from catalog.errors import VitrineError
from launch import checkpoints
from launch.checkpoints import Checkpoints, clean_up, newest_valid_checkpoint
from launch.trainer import build_trainer
from pretrain.checkpoint_files import list_checkpoints
from pretrain.config import TrainerConfig
from tests.launch.train_toy import Numbers, Toy

OLD, NEW = 4, 8
"""Steps of the existing checkpoint, and of the one that is being written."""
CONTROL = "last.ckpt"
CREATES = re.compile(r"O_CREAT|O_TRUNC")
FULL_DISKS = 24
WRITES = ("write", "pwrite64", "openat", "mkdir", "rename", "fsync", "ftruncate", "fallocate")
NOTES = Path(tempfile.mkdtemp())
"""Folder of the strace logs and error messages, outside the disk that is filled."""
Save = Callable[[Path], None]
"""Writes the newer checkpoint into a run's folder."""


@dataclass(frozen=True)
class Point:
    """The nth call of this name since the save began."""

    name: str
    number: int
    line: str


def main() -> None:
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        stop_before_save(Path(folder) / "run") as (run, saves),
    ):
        kill(run, saves)
        fill_disk(run, saves)


@contextmanager
def stop_before_save(run: Path) -> Iterator[tuple[Path, dict[str, Save]]]:
    """Trains up to the second checkpoint; yields the run's folder and functions that write it."""
    found: list[Any] = []

    def hold(self: Checkpoints, trainer: Any, step: int, background: bool) -> None:
        if step == OLD:
            write(self, trainer, step, background)
            return
        found.append((self, trainer))
        raise _StopBeforeSave

    write = Checkpoints._write
    Checkpoints._write = hold  # type: ignore[method-assign]
    config = TrainerConfig(
        max_steps=NEW,
        accelerator="cpu",
        checkpoint_every=OLD,
        hang_timeout=0,
        progress=False,
        log_to="csv",
    )
    trainer = build_trainer(config, run, "Toy")
    try:
        trainer.fit(Larger(), DataLoader(Numbers(0, 1), batch_size=None))
    except _StopBeforeSave:
        pass
    finally:
        Checkpoints._write = write  # type: ignore[method-assign]
    ((callback, trainer),) = found
    state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    def ours(folder: Path) -> None:
        callback.folder = folder / "checkpoints"
        callback.events.path = folder / "events.jsonl"
        with checkpoint_state(state):
            write(callback, trainer, NEW, False)

    def control(folder: Path) -> None:
        torch.save(state, folder / CONTROL)

    yield run, {"ours": ours, "torch.save": control}


class Larger(Toy):
    """A toy module with a state of a megabyte, so that the disk can be full at many points of a save."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 10_000), nn.Tanh(), nn.Linear(10_000, 1))


class _StopBeforeSave(BaseException):
    pass


@contextmanager
def checkpoint_state(state: dict[str, Any]) -> Iterator[None]:
    """Patches `Trainer.save_checkpoint` to write `state`, since the Trainer has ended."""
    from pytorch_lightning import Trainer

    def save(self: Trainer, path: Path) -> None:
        checkpoints.save_state(state, path)

    before = Trainer.save_checkpoint
    Trainer.save_checkpoint = save  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Trainer.save_checkpoint = before  # type: ignore[method-assign]


def under_strace(save: Save, folder: Path, *options: str) -> tuple[int, str]:
    """Saves in a child process under strace; returns its wait status and the log of system calls."""
    log, message_file = NOTES / "strace", NOTES / "said"
    message_file.write_text("")
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            save(folder)
        except VitrineError as error:
            message_file.write_text(str(error))
            os._exit(2)
        except BaseException as error:
            message_file.write_text(repr(error))
            os._exit(3)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    tracer = subprocess.Popen(
        ["strace", "-p", str(child), "-y", "-s", "16", "-o", str(log), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    first = tracer.stderr.readline()
    assert "attached" in first, first
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    tracer.wait()
    return status, log.read_text(errors="replace")


def syscalls_of(log: str, folder: Path) -> list[Point]:
    """The system calls in the log that name the folder or a file in it."""
    numbers: Counter[str] = Counter()
    found = []
    for line in log.splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        numbers[match[1]] += 1
        if str(folder) in line:
            found.append(Point(match[1], numbers[match[1]], line))
    return found


@contextmanager
def copy_of(run: Path, root: Path | None = None) -> Iterator[Path]:
    """Yields a temporary copy of a run's folder from before the save."""
    with tempfile.TemporaryDirectory(dir=root) as place:
        folder = Path(place) / "run"
        shutil.copytree(run, folder)
        if root is None:
            shutil.copy(run / "checkpoints" / f"step={OLD}" / "state", folder / CONTROL)
        yield folder


def loaded(folder: Path) -> tuple[int, bool]:
    """The step a run would resume from, and whether its state is of that step."""
    found = newest_valid_checkpoint(folder)
    assert found is not None
    state = torch.load(found / "state", weights_only=True)
    return state["global_step"], found.name == f"step={state['global_step']}"


def kill(run: Path, saves: dict[str, Save]) -> None:
    figures: dict[str, Any] = {"points": 0, "neither": 0, "mixtures": 0, "leftovers": 0}
    figures |= {"old": 0, "new": 0, "torch_save_points": 0, "torch_save_broken": 0}
    calls: Counter[str] = Counter()
    for name, save in saves.items():
        with copy_of(run) as folder:
            status, log = under_strace(save, folder)
            assert status == 0, (NOTES / "said").read_text()
            points = [(p.name, p.number) for p in syscalls_of(log, folder)]
        for call, number in points:
            with copy_of(run) as folder:
                inject = f"inject={call}:signal=SIGKILL:when={number}"
                status, _ = under_strace(save, folder, "-e", inject)
                assert os.WIFSIGNALED(status), f"{call} {number} was not reached"
                if name == "ours":
                    calls[call] += 1
                    figures["points"] += 1
                    _judge(folder, figures)
                else:
                    figures["torch_save_points"] += 1
                    figures["torch_save_broken"] += not _loads(folder / CONTROL)
    figures["calls"] = ", ".join(f"{call} {number}" for call, number in sorted(calls.items()))
    write_record(
        "launch-kill",
        claim="Killed at any system call of a save, a run goes on from the old checkpoint or the new "
        "one, whole, and what was left over is swept.",
        command="python -m benchmarks.kill",
        seeds=(),
        figures=figures,
        sources=[*CHECKPOINTS],
        goal=[
            "points >= 30",
            "neither == 0",
            "mixtures == 0",
            "leftovers == 0",
            "old >= 1",
            "new >= 1",
            "torch_save_broken >= 1",
        ],
        note="Every call that names the run's folder, or a file below it by name or descriptor, in the "
        "order they came when nothing was injected; strace sends SIGKILL as each is entered (calls: how "
        "many of each). The checkpoint before stands beside it, as in training. torch_save: the control, "
        "torch.save over the file of the checkpoint before, as it is often done; broken: neither loads.",
    )


def _judge(folder: Path, figures: dict[str, Any]) -> None:
    try:
        step, whole = loaded(folder)
    except Exception:
        figures["neither"] += 1
        return
    figures["mixtures"] += not whole
    figures["old"] += step == OLD
    figures["new"] += step == NEW
    clean_up(folder / "checkpoints", step)
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    figures["leftovers"] += any(re.fullmatch(r"step=\d+", name) is None for name in names)


def _loads(path: Path) -> bool:
    try:
        return torch.load(path, weights_only=True)["global_step"] in (OLD, NEW)
    except Exception:
        return False


def fill_disk(run: Path, saves: dict[str, Save]) -> None:
    figures: dict[str, Any] = {"points": 0, "disks": 0, "unsound": 0, "unsaid": 0, "ended_well": 0}
    save = saves["ours"]
    with copy_of(run) as folder:
        _, log = under_strace(save, folder)
        points = [
            (point.name, point.number)
            for point in syscalls_of(log, folder)
            if point.name in WRITES
            and " = -1 " not in point.line  # failed calls write nothing
            and (point.name != "openat" or CREATES.search(point.line))
        ]
        made = folder / "checkpoints" / f"step={NEW}"
        needed = sum(path.stat().st_size for path in made.rglob("*"))
    for call, number in points:
        with copy_of(run) as folder:
            inject = f"inject={call}:error=ENOSPC:when={number}"
            status, _ = under_strace(save, folder, "-e", inject)
            figures["points"] += 1
            _judge_full(folder, status, figures)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
        try:
            for disk in range(FULL_DISKS):
                with copy_of(run, Path(place)) as folder:
                    room = round(needed * disk / FULL_DISKS)
                    free = shutil.disk_usage(place).free
                    (Path(place) / "filler").write_bytes(bytes(max(0, free - room)))
                    status, _ = under_strace(save, folder)
                    (Path(place) / "filler").unlink()
                    figures["disks"] += 1
                    _judge_full(folder, status, figures)
        finally:
            subprocess.run(["umount", place], check=True)
    write_record(
        "launch-disk-full",
        claim="Where the disk is full at any write of a save, the run ends with one line that names "
        "the path and the bytes needed, and the checkpoint before it loads.",
        command="python -m benchmarks.kill",
        seeds=(),
        figures=figures,
        sources=[*CHECKPOINTS],
        goal=["points >= 10", "disks >= 20", "unsound == 0", "unsaid == 0", "ended_well == 0"],
        note="points: each call of a save that writes, makes or renames, answered with ENOSPC by "
        "strace; disks: a tmpfs of 16 MiB with a little more room each time, never enough. unsound: "
        "neither the old nor the new checkpoint loads; unsaid: the line lacks the path or the bytes; "
        "ended_well: exit status 0.",
    )


def _judge_full(folder: Path, status: int, figures: dict[str, Any]) -> None:
    line = (NOTES / "said").read_text()
    figures["ended_well"] += status == 0
    named = re.search(rf"{re.escape(str(folder))}\S*step={NEW}", line)
    figures["unsaid"] += not (named and re.search(r"needs about [1-9][\d,]* bytes", line))
    try:
        step, whole = loaded(folder)
        figures["unsound"] += not whole or step not in (OLD, NEW)
    except Exception:
        figures["unsound"] += 1
    assert list_checkpoints(folder)


if __name__ == "__main__":
    main()
