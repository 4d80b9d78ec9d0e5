"""A power cut leaves the old or the new: what is renamed into place has reached the disk before."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.artifacts import edit_artifact, write_artifact
from catalog.atomic_write import replace_file
from pretrain.work import claim_work
from tests.disk import Recorder, faults, read_strace

Writer = Callable[[Path], Path]
"""Writes below a folder; returns what stands there then."""


def artifact(folder: Path) -> Path:
    with write_artifact(folder / "made", kind="encoder", config={"width": 8}) as staging:
        (staging / "weights").write_bytes(b"1" * 5000)
        (staging / "history").mkdir()
        (staging / "history" / "weights").write_bytes(b"2" * 5000)
    return folder / "made"


def another_artifact(folder: Path) -> Path:
    artifact(folder)
    return artifact(folder)


def amended_artifact(folder: Path) -> Path:
    with edit_artifact(artifact(folder)) as copy:
        (copy / "weights").write_bytes(b"3")
    return folder / "made"


def checkpoint(folder: Path, **settings: Any) -> Path:
    from tests.launch.test_checkpoints import train

    train(folder / "run", 4, 4, **settings)
    return folder / "run" / "checkpoints" / "step=4"


def async_checkpoint(folder: Path) -> Path:
    return checkpoint(folder, async_checkpoint=True)


def one_file(folder: Path) -> Path:
    (folder / "partial").write_text("new")
    replace_file(folder / "partial", folder / "final")
    return folder / "final"


def claimed(folder: Path) -> Path:
    claim_work(folder / "x.work", "a request")
    return folder / "x.work" / "request.txt"


WRITERS = [
    artifact,
    another_artifact,
    amended_artifact,
    checkpoint,
    async_checkpoint,
    one_file,
    claimed,
]


def names(writer: Writer) -> str:
    return writer.__name__


@pytest.mark.parametrize("writer", WRITERS, ids=names)
def test_all_is_on_the_disk_before_it_gets_its_name(writer: Writer, tmp_path: Path) -> None:
    with Recorder().watching() as recorder:
        made = writer(tmp_path)
    assert faults(recorder.events, made) == []


@pytest.mark.slow
@pytest.mark.parametrize("writer", [artifact, checkpoint, one_file], ids=names)
def test_all_is_on_the_disk_before_it_gets_its_name_says_strace(
    writer: Writer, tmp_path: Path
) -> None:
    """The kernel's own order, of threads and of what libraries do too."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; the test above looks from inside the process")
    log, work = tmp_path / "log", tmp_path / "work"
    work.mkdir()
    code = (
        f"from pathlib import Path; from tests.test_durability import {writer.__name__} as write; "
        f"print(write(Path({str(work)!r})))"
    )
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
    done = subprocess.run(
        [strace, "-f", "--seccomp-bpf", "-y", "-o", log, "-e", calls, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert faults(read_strace(log.read_text()), Path(done.stdout.splitlines()[-1])) == []


def write_badly(folder: Path, *, file: bool, inside: bool, holder: bool, late: bool) -> Path:
    """With one of the flushes left out, or a write after it."""
    from catalog.atomic_write import fsync_file, fsync_folder

    partial, final = folder / "partial", folder / "final"
    partial.mkdir()
    (partial / "weights").write_text("1")
    if file:
        fsync_file(partial / "weights")
    if inside:
        fsync_folder(partial)
    if late:
        (partial / "weights").write_text("12")
    partial.rename(final)
    if holder:
        fsync_folder(folder)
    return final


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"file": False}, "weights was not flushed before the rename"),
        ({"inside": False}, "the folder final was not flushed before the rename"),
        ({"holder": False}, "the folder that holds the new name was not flushed after the rename"),
        ({"late": True}, "weights was written after it was flushed"),
        ({}, ""),
    ],
)
def test_the_witness_sees_what_is_left_out(
    fault: dict[str, bool], expected: str, tmp_path: Path
) -> None:
    ways = {"file": True, "inside": True, "holder": True, "late": False} | fault
    with Recorder().watching() as recorder:
        final = write_badly(tmp_path, **ways)
    assert faults(recorder.events, final) == ([expected] if expected else [])
