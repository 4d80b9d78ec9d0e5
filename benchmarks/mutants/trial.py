"""Plants faults in a copy of the tree and says of each whether its tests notice."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.mutants.plan import Mutant

KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
"""Any other outcome says in words why a mutant tells nothing."""
SLOW_IMPORTS = ("torch", "transformers", "pytorch_lightning", "peft", "pyarrow.parquet")
NOT_THE_FAULT = (
    "NameError",
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "UnboundLocalError",
)
"""Exceptions of a patch that does not fit its file: any code at all would raise them."""
NO_COPY = (".git", ".venv", ".cache", ".*_cache", "__pycache__", "runs", "build", "*.egg-info")


class Trials:
    """A copy of the tree in `folder`, and a process that runs tests there."""

    def __init__(
        self, root: Path, folder: Path, imports: Iterable[str] = SLOW_IMPORTS, seconds: int = 60
    ) -> None:
        self.copy, self.folder, self.seconds = folder / "copy", folder, seconds
        shutil.copytree(root, self.copy, ignore=shutil.ignore_patterns(*NO_COPY))
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "VITRINE_CACHE": str(folder / "cache"),
        }
        self.zygote = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("zygote.py")), *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, *_: object) -> None:
        self.zygote.kill()
        self.zygote.communicate()

    def failing(self, tests: Sequence[str]) -> dict[str, str]:
        """Selection → why it proves nothing: a test of it does not pass in the unchanged copy."""
        report = self._run(tests, [])
        if report.get("code") not in (0, 1):  # one selection is not found: look at each by itself
            if len(tests) == 1:
                return {tests[0]: self._last_line()}
            return {key: why for test in tests for key, why in self.failing([test]).items()}
        return {test: why for test in tests if (why := _why_not(test, report["tests"]))}

    def outcome(self, mutant: Mutant) -> str:
        """KILLED where a test fails with the fault, SURVIVED where all pass, else what went wrong."""
        path = self.copy / mutant.file
        text = path.read_text(encoding="utf-8")
        try:
            changed = mutant.applied(text)
        except ValueError as error:
            return str(error)
        try:
            self._write(path, changed)
            report = self._run(mutant.tests, ["-x"])
        finally:
            self._write(path, text)
        if "tests" not in report:
            return "the tests ended their own process" if report["ended"] else TIMED_OUT
        ends = list(report["tests"].values())
        if any(end == "failed" and error not in NOT_THE_FAULT for end, error in ends):
            return KILLED
        if any(end == "timed out" for end, _ in ends):
            return TIMED_OUT
        if report["code"] == 0:
            return SURVIVED
        return f"the patch does not fit: {self._last_line()}"

    def _run(self, tests: Sequence[str], options: list[str]) -> dict[str, Any]:
        job = {
            "copy": str(self.copy),
            "folder": str(self.folder),
            "seconds": self.seconds,
            "tests": list(tests),
            "options": options,
        }
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(job) + "\n")
        self.zygote.stdin.flush()
        return json.loads(self.zygote.stdout.readline())

    def _write(self, path: Path, text: str) -> None:
        """Also forgets the compiled file, which goes by whole seconds and the size."""
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def _last_line(self) -> str:
        lines = (self.folder / "output").read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "no output")


def _why_not(selection: str, tests: dict[str, tuple[str, str]]) -> str:
    """Why a selection proves nothing, or an empty text."""
    begins = (f"{selection}[", f"{selection}::", f"{selection}/")
    mine = {id: end for id, (end, _) in tests.items() if id == selection or id.startswith(begins)}
    bad = [f"{id} {end}" for id, end in mine.items() if end not in ("passed", "skipped")]
    if bad:
        return f"without the fault: {bad[0]}"
    return "" if "passed" in mine.values() else "none of its tests runs here"
