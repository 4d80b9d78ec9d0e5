"""A parser under test, and the loop that gives it random inputs."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from catalog.errors import VitrineError


@dataclass(frozen=True)
class Parser:
    """What one parser is given, and how it is called."""

    inputs: st.SearchStrategy[Any]
    parse: Callable[[Any, Path], object]
    """(input, empty folder of its own) → what was read, as something with a `repr`; AssertionError where
    rows are not accounted for."""
    again: int = 1
    """One of so many inputs is parsed twice, and must give the same."""
    prepare: Callable[[Path], object] = lambda folder: None
    """Writes what all inputs share into the folder, before reads are watched."""


@dataclass
class Findings:
    """What the inputs of one parser showed."""

    examples: int = 0
    refused: int = 0
    """Inputs that were answered with a VitrineError."""
    faults: dict[str, int] = field(default_factory=dict)
    """Where and how something else was raised → how often."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The shortest input of each fault."""

    def count(self, fault: str, given: object) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1
        text = repr(given)
        if fault not in self.inputs or len(text) < len(self.inputs[fault]):
            self.inputs[fault] = text[:2000]


def fuzz(parser: Parser, folder: Path, examples: int, number: int = 0) -> Findings:
    """Gives a parser random inputs; `number` is the seed."""
    findings = Findings()

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    @given(parser.inputs)
    def run(given: Any) -> None:
        findings.examples += 1
        first = answer(parser, given, folder, findings)
        if findings.examples % parser.again == 0 and first is not None:
            second = answer(parser, given, folder, findings)
            if second != first:
                findings.count("the same input gave another answer", given)

    run()
    return findings


def answer(parser: Parser, given: Any, folder: Path, findings: Findings) -> str | None:
    """What a parser makes of an input, as text; None where it raised what it must not."""
    try:
        return repr(parser.parse(given, folder))
    except VitrineError as error:
        findings.refused += 1
        if len(str(error).splitlines()) > 1:
            findings.count("a message of several lines", given)
        return str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [one for one in last if "/catalog/" in one.filename or "/launch/" in one.filename]
        place = ours[-1] if ours else last[-1]
        findings.count(
            f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}", given
        )
        return None
