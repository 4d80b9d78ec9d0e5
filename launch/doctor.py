"""`vitrine doctor`: checks a machine for what would make a run fail.

One line for each result: level, name of the check, message, remedy. The checks are in `launch/checks`;
a check that raises is a result too.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from launch.checks import CheckResult

Check = Callable[[], Iterable[CheckResult]]


@dataclass(frozen=True)
class DoctorOptions:
    work: str = "runs"
    """Folder that runs will write to; on a cluster, one that all machines share."""
    json: bool = False
    """A JSON list instead of lines."""


def doctor(options: DoctorOptions) -> None:
    """Prints the results of all checks; exits with status 1 if one failed."""
    results = examine(checks(Path(options.work)))
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        print("\n".join(lines(results)))
    if any(result.level == "fail" for result in results):
        raise SystemExit(1)


def checks(work: Path) -> dict[str, Check]:
    """Every check by name, in the order of the output."""
    from launch.checks import devices, folders, network, versions

    named: dict[str, Check] = {
        "python": versions.python,
        "packages": versions.packages,
        "gpus": devices.gpus,
        "cores": devices.cores,
        "compilers": devices.compilers,
        "deepspeed": devices.deepspeed,
        "gloo": network.gloo,
        "names": network.names,
        "limits": folders.limits,
    }
    for check in (folders.space, folders.durability, folders.speed, folders.sharing, folders.clock):
        named[check.__name__] = partial(check, work)
    return named


def examine(named: dict[str, Check]) -> list[CheckResult]:
    """All results. The checks run in parallel, because some only wait for an answer."""
    with ThreadPoolExecutor(max_workers=len(named)) as pool:
        by_check = pool.map(_isolated, named, named.values())
        return [result for results in by_check for result in results]


def lines(results: list[CheckResult]) -> list[str]:
    wide = max(len(result.name) for result in results)
    return [
        f"{result.level:4}  {result.name:{wide}}  {result.message}"
        + (f"  → {result.remedy}" if result.remedy else "")
        for result in results
    ]


def _isolated(name: str, check: Check) -> list[CheckResult]:
    try:
        return list(check())
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        message = f"the check failed: {type(error).__name__}: {reason}"
        return [
            CheckResult(
                "fail", name, message, "read the message; report a bug if it makes no sense"
            )
        ]
