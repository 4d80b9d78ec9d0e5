"""`vitrine doctor`: looks at a machine before a run does, and says what would go wrong.

One line a finding: how bad, what was looked at, what was found, what to do. The checks are in
`launch/checks`; one that fails itself is a finding too.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from launch.checks import Finding

Check = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class DoctorOptions:
    work: str = "runs"
    """Folder that runs will write to; on a cluster, one that all machines share."""
    json: bool = False
    """A JSON list instead of lines."""


def doctor(options: DoctorOptions) -> None:
    """Prints its findings; ends with status 1 where one of them is a failure."""
    findings = examine(checks(Path(options.work)))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(lines(findings)))
    if any(finding.level == "fail" for finding in findings):
        raise SystemExit(1)


def checks(work: Path) -> dict[str, Check]:
    """Every check by name, in the order they are told."""
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
    for look in (folders.space, folders.keeps, folders.speed, folders.sharing, folders.clock):
        named[look.__name__] = partial(look, work)
    return named


def examine(named: dict[str, Check]) -> list[Finding]:
    """All findings. The checks run side by side, as some only wait for others to answer."""
    with ThreadPoolExecutor(max_workers=len(named)) as pool:
        found = pool.map(_isolated, named, named.values())
        return [finding for findings in found for finding in findings]


def lines(findings: list[Finding]) -> list[str]:
    wide = max(len(finding.what) for finding in findings)
    return [
        f"{finding.level:4}  {finding.what:{wide}}  {finding.found}"
        + (f"  → {finding.remedy}" if finding.remedy else "")
        for finding in findings
    ]


def _isolated(name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        found = f"could not be looked at: {type(error).__name__}: {said}"
        return [Finding("fail", name, found, "see what it says; a bug, if it makes no sense")]
