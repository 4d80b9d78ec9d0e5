"""Submits a script or manifest with `sbatch` or `kubectl`; a dry run prints it instead."""

import shutil
import subprocess
import sys
from pathlib import Path

from catalog.errors import VitrineError


def submit_script(text: str, path: Path, command: list[str], dry_run: bool) -> None:
    """Writes `text` to `path` and runs `command` on it; with `dry_run`, prints `text` instead.

    Raises VitrineError where the program is not there, or refuses.
    """
    if dry_run:
        print(text, end="")
        return
    program = command[0]
    if shutil.which(program) is None:
        raise VitrineError(
            f"{program} is not on this machine; launch where it is, or submit by hand what --dry_run "
            "prints."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        answer = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise VitrineError(f"{program} refused {path}: {answer[-1]}")
    print(path, file=sys.stderr)
    print(done.stdout, end="")
