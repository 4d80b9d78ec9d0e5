"""Fixtures of several tests of launching."""

import os
import shlex
from pathlib import Path

import pytest


@pytest.fixture
def shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of schedulers that write down how they were called; in a folder of their own."""
    folder = tmp_path / "shims"
    folder.mkdir()
    bodies = {
        "sbatch": 'cp "$1" submitted; echo Submitted batch job 7',
        "kubectl": 'cp "$3" submitted; echo created',
        "scontrol": 'if [ "$1" = show ]; then echo first; fi',
        "squeue": 'echo "${STATE:-RUNNING}"',
        "srun": 'while [[ $1 = --* ]]; do shift; done; exec "$@"',
    }
    for name, body in bodies.items():
        shim = folder / name
        log = shlex.quote(str(tmp_path / "calls"))
        shim.write_text(f'#!/bin/bash\necho "{name} $*" >> {log}\n{body}\n')
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder
