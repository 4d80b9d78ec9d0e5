"""Runs pytest again and again in forks of one process that has imported the slow libraries once.

Reads jobs from standard input and writes reports to standard output, one line of JSON each. Runs as a
script, so that nothing of the project is imported before a job says from which copy.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest


class Watch:
    """Notes how each test went: `passed`, `failed`, `skipped`, or `timed out`, and the exception's name."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[str, str]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        error = call.excinfo.typename if call.excinfo else ""
        outcome = report.outcome
        if (
            outcome == "failed"
            and call.excinfo is not None
            and "Timeout" in str(call.excinfo.value)
        ):
            outcome = "timed out"
        if report.when == "call" or outcome != "passed":
            self.tests[item.nodeid] = (outcome, error)
        return report


def run_tests(job: dict[str, Any]) -> None:
    """In a child: leaves the report and the output in the job's folder, and exits."""
    copy, folder = job["copy"], Path(job["folder"])
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # jobs are not for the tests to read
    with (folder / "output").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = copy
    sys.path.insert(0, copy)
    watch = Watch()
    options = ["-q", "-p", "no:cacheprovider", "-m", "", f"--rootdir={copy}"]
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    options += [f"--basetemp={folder / 'tmp'}", f"-o=timeout={job['seconds']}", *job["options"]]
    code = int(pytest.main([*options, *job["tests"]], plugins=[watch]))
    sys.stdout.flush()
    (folder / "report.json").write_text(json.dumps({"code": code, "tests": watch.tests}))
    os._exit(0)


def wait_for(child: int, seconds: float) -> bool:
    """Whether it ended by itself within the time; whatever it started is killed either way."""
    ends, ended = time.monotonic() + seconds, False
    while not ended and time.monotonic() < ends:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
    return ended


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        report = Path(job["folder"]) / "report.json"
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            try:
                run_tests(job)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        ended = wait_for(child, job["seconds"] * len(job["tests"]) + 60)
        print(report.read_text() if report.exists() else json.dumps({"ended": ended}), flush=True)


if __name__ == "__main__":
    main()
