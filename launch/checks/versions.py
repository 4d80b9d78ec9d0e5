"""Checks of the versions of Python and of libraries."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from launch.checks import CheckResult

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
"""In a checkout; an installed wheel has none."""
SHOWN = ("torch", "pytorch-lightning", "deepspeed", "transformers", "peft", "diffusers")


def python() -> Iterator[CheckResult]:
    required, here = metadata("vitrine")["Requires-Python"], platform.python_version()
    if SpecifierSet(required).contains(here, prereleases=True):
        yield CheckResult("ok", "python", here)
    else:
        yield CheckResult("fail", "python", f"{here}, {required} is needed", "PYTHON=… ./install")


def packages() -> Iterator[CheckResult]:
    """Whether packages are within the ranges of pyproject.toml, and equal to constraints.txt."""
    here: dict[str, str] = {}
    broken = False
    for requirement in map(Requirement, requires("vitrine") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, remedy = requirement.name, f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            here[name] = version(name)
        except PackageNotFoundError:
            broken = True
            yield CheckResult("fail", name, "not installed", remedy)
            continue
        if not requirement.specifier.contains(here[name], prereleases=True):
            broken = True
            yield CheckResult("fail", name, f"{here[name]} is not {requirement.specifier}", remedy)
    if not broken:
        listed = ", ".join(f"{name} {here[name]}" for name in SHOWN if name in here)
        yield CheckResult("ok", "packages", f"{listed}; all {len(here)} in their ranges")
    yield from _beside_constraints(here)


def _beside_constraints(here: dict[str, str]) -> Iterator[CheckResult]:
    if not CONSTRAINTS.is_file():
        return
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    seen = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    others = [
        f"{name} {here[name]} (seen: {seen[name]})"
        for name in here
        if name in seen and here[name].split("+")[0] != seen[name]
    ]
    if others:
        remedy = "./install takes the versions seen working together"
        yield CheckResult("warn", "constraints", ", ".join(others), remedy)
