"""Each fault of a machine is one line with a remedy; the faults are planted here."""

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.checks import CheckResult, devices, folders, network, versions
from launch.cli import main
from launch.doctor import checks, examine, lines

Patch = pytest.MonkeyPatch


def level(results: Iterator[CheckResult], what: str) -> str:
    """The level of the result named `what`; a result that is not ok has a remedy."""
    found = {result.name: result for result in results}
    assert found[what].level == "ok" or found[what].remedy
    return found[what].level


def test_a_healthy_folder_and_its_machine_are_fine(tmp_path: Path) -> None:
    for results in (folders.speed(tmp_path), folders.sharing(tmp_path), folders.clock(tmp_path)):
        assert {result.level for result in results} == {"ok"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("here", "expected"), [("3.10.9", "fail"), ("3.11.2", "ok")])
def test_an_old_python_fails(here: str, expected: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(versions.platform, "python_version", lambda: here)
    assert level(versions.python(), "python") == expected


def test_packages_out_of_range_missing_or_untested_are_reported(monkeypatch: Patch) -> None:
    real = versions.version
    wrong = {"torch": "1.13.0", "rich": "14.0.1"}

    def version(name: str) -> str:
        if name == "peft":
            raise versions.PackageNotFoundError(name)
        return wrong.get(name) or real(name)

    monkeypatch.setattr(versions, "version", version)
    found = {result.name: result for result in versions.packages()}
    assert found["torch"].level == found["peft"].level == "fail"
    assert "1.13.0 is not" in found["torch"].message
    assert "rich 14.0.1" in found["constraints"].message
    assert found["constraints"].level == "warn"
    assert "packages" not in found


def test_gpus_that_torch_cannot_use_fail(monkeypatch: Patch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_output_of", lambda *_: "570.1\n570.1\n")
    assert level(devices.gpus(), "gpus") == "fail"
    monkeypatch.setattr(devices, "_output_of", lambda *_: "")
    assert level(devices.gpus(), "gpus") == "ok"


def test_gpus_without_bf16_or_nccl_or_of_two_kinds_are_reported(monkeypatch: Patch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: f"card {n}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    monkeypatch.setattr(devices, "_output_of", lambda *_: "")
    levels = {result.name: result.level for result in devices.gpus()}
    assert levels == {"gpus": "ok", "gpus alike": "warn", "bf16": "warn", "nccl": "fail"}


def test_another_cuda_toolkit_than_torch_has_is_reported(monkeypatch: Patch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    for said, expected in (("release 13.0, V13", "warn"), ("", "warn"), ("release 12.4", "ok")):
        monkeypatch.setattr(devices, "_output_of", lambda *_, said=said: said)
        assert level(devices._cuda_compiler(), "nvcc") == expected


def test_more_threads_than_cores_are_reported(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "none")
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(8)))
    for threads, expected in (("9", "warn"), ("many", "warn"), ("8", "ok")):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert level(devices.cores(), "threads") == expected


def test_a_container_with_fewer_cores_than_visible_is_reported(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert level(devices.cores(), "threads") == "warn"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert level(devices.cores(), "threads") == "ok"


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert level(devices.compilers(), "compiler") == "warn"
    assert level(devices.deepspeed(), "deepspeed") == "warn"
    for program in devices.BUILDERS:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    assert level(devices.compilers(), "compiler") == "ok"
    assert level(devices.deepspeed(), "deepspeed") == "ok"


def test_a_missing_deepspeed_fails(monkeypatch: Patch) -> None:
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: None)
    assert level(devices.deepspeed(), "deepspeed") == "fail"


def test_two_processes_meet() -> None:
    assert level(network.gloo(), "gloo") == "ok"


def test_processes_that_do_not_meet_fail(tmp_path: Path, monkeypatch: Patch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(network.sys, "executable", str(python))
    monkeypatch.setattr(network, "TIMEOUT", 0.2)
    assert level(network.gloo(), "gloo") == "fail"
    python.write_text("#!/bin/sh\necho no interface >&2; exit 1\n")
    monkeypatch.setattr(network, "TIMEOUT", 10)
    (found,) = network.gloo()
    assert (found.level, found.message) == ("fail", "no interface")


def test_a_host_name_without_address_is_reported(monkeypatch: Patch) -> None:
    def unknown(_: str) -> str:
        raise socket.gaierror("unknown")

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(network.socket, "gethostbyname", unknown)
    assert level(network.names(), "host name") == "warn"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(socket.gaierror(), "fail"), (ConnectionRefusedError(), "ok"), (TimeoutError(), "warn")],
)
def test_an_unreachable_master_address_is_reported(
    raised: OSError, expected: str, monkeypatch: Patch
) -> None:
    def connect(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setenv("MASTER_ADDR", "first")
    monkeypatch.setattr(network.socket, "create_connection", connect)
    assert level(network.names(), "MASTER_ADDR") == expected


@pytest.mark.parametrize(("free", "expected"), [(1e9, "fail"), (5e9, "warn"), (99e9, "ok")])
def test_a_full_disk_is_reported(
    free: float, expected: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    disk = SimpleNamespace(f_bavail=int(free), f_frsize=1, f_files=10, f_favail=5)
    monkeypatch.setattr(folders.os, "statvfs", lambda _: disk)
    for what in ("space for runs", "space for the cache"):
        assert level(folders.space(tmp_path), what) == expected
    disk.f_favail = 0
    assert level(folders.space(tmp_path), "space for runs") != "ok"


@pytest.mark.parametrize(("kind", "expected"), [("tmpfs", "warn"), ("ext4", "ok")])
def test_an_ephemeral_folder_is_reported(
    kind: str, expected: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    mounts, work = tmp_path / "mounts", tmp_path / "a b"
    work.mkdir()
    point = str(work).replace(" ", r"\040")
    mounts.write_text(f"disk / overlay rw 0 0\nit {point} {kind} rw 0 0\n")
    monkeypatch.setattr(folders, "MOUNTS", mounts)
    assert level(folders.durability(work / "not" / "yet"), "file system") == expected
    assert level(folders.durability(tmp_path), "file system") == "warn"


def test_a_slow_disk_is_reported(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(folders.os, "fsync", lambda _: time.sleep(1.0))
    assert level(folders.speed(tmp_path), "writing") == "warn"


def copies(source: Path, target: Path) -> None:
    """A rename as some object stores have it: in two steps, into the file that is open."""
    target.write_bytes(source.read_bytes())
    source.unlink()


def refuses(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("module", "name", "fault", "check"),
    [
        (os, "replace", copies, "rename"),
        (os, "fsync", refuses, "rename"),
        (fcntl, "flock", lambda *_: None, "locks"),
        (fcntl, "flock", refuses, "locks"),
        (folders.mmap, "mmap", refuses, "mapped files"),
    ],
)
def test_a_file_system_that_breaks_a_promise_fails(
    module: object,
    name: str,
    fault: Callable[..., None],
    check: str,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    monkeypatch.setattr(module, name, fault)
    found = {result.name: result.level for result in folders.sharing(tmp_path)}
    assert found.pop(check) == "fail"
    assert set(found.values()) == {"ok"}


def test_clock_skew_is_reported(tmp_path: Path, monkeypatch: Patch) -> None:
    write = Path.write_bytes

    def late(path: Path, content: bytes) -> int:
        written = write(path, content)
        os.utime(path, (time.time() + 60, time.time() + 60))
        return written

    monkeypatch.setattr(Path, "write_bytes", late)
    assert level(folders.clock(tmp_path), "clock") == "warn"


def test_low_limits_are_reported(monkeypatch: Patch) -> None:
    monkeypatch.setattr(folders.resource, "getrlimit", lambda _: (1024, 4096))
    memory = SimpleNamespace(f_blocks=64 * 2**20, f_frsize=1)
    monkeypatch.setattr(folders.os, "statvfs", lambda _: memory)
    assert level(folders.limits(), "open files") == "warn"
    assert level(folders.limits(), "shared memory") == "warn"


def test_a_check_that_fails_itself_is_a_finding_and_the_others_go_on(tmp_path: Path) -> None:
    def broken() -> Iterator[CheckResult]:
        yield CheckResult("ok", "broken", "so far")
        raise KeyError("what\nnow")

    named = {"broken": broken, "clock": lambda: folders.clock(tmp_path)}
    results = examine(named)
    assert [result.level for result in results] == ["fail", "ok"]
    assert "KeyError" in results[0].message
    assert len(lines(results)) == 2
    assert not any("\n" in line for line in lines(results))


def test_a_folder_that_cannot_be_written_fails_without_a_traceback(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(folders.tempfile, "TemporaryDirectory", refused)
    named = {name: look for name, look in checks(tmp_path).items() if name == "clock"}
    (found,) = examine(named)
    assert found.level == "fail"
    assert str(tmp_path) in found.message


def test_the_command_ends_with_1_where_something_fails(monkeypatch: Patch, capsys) -> None:
    result = CheckResult("warn", "a", "found", "remedy")
    monkeypatch.setattr("launch.doctor.checks", lambda _: {"a": lambda: [result]})
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "warn  a  found  → remedy\n"
    bad = CheckResult("fail", "b", "found", "remedy")
    monkeypatch.setattr("launch.doctor.checks", lambda _: {"a": lambda: [bad]})
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--json"])
    assert stop.value.code == 1
    assert json.loads(capsys.readouterr().out) == [
        {"level": "fail", "name": "b", "message": "found", "remedy": "remedy"}
    ]


def test_doctor_is_quick_and_leaves_no_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.cli", "doctor", "--work", str(tmp_path)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert time.monotonic() - started < 60  # 20 seconds on a machine that is not busy
    assert "Traceback" not in done.stderr
    for line in done.stdout.splitlines():
        assert re.match(r"(ok|warn|fail)\s+\S.*", line)
    assert len(done.stdout.splitlines()) > 15
    assert not list(tmp_path.iterdir())
