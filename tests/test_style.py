"""Files and functions stay short, and packages annotated."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog", "pretrain", "finetune", "generate", "launch")
FILES = sorted(
    path for folder in (*PACKAGES, "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf8").splitlines())


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, Function):
            yield node


def annotations(function: Function) -> Iterator[bool]:
    """Whether each parameter and the return value has an annotation."""
    listed = function.args
    parameters = [*listed.posonlyargs, *listed.args, *listed.kwonlyargs]
    parameters += [one for one in (listed.vararg, listed.kwarg) if one is not None]
    for parameter in parameters:
        if parameter.arg not in ("self", "cls"):
            yield parameter.annotation is not None
    yield function.returns is not None


def test_no_file_has_more_than_400_lines() -> None:
    long = {str(path.relative_to(ROOT)): num_lines(path) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_half_of_the_files_have_at_most_120_lines() -> None:
    assert median(map(num_lines, FILES)) <= 120


def test_no_function_has_more_than_60_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": lines
        for path in FILES
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > 60
    }
    assert long == {}


def test_parameters_and_returns_of_the_packages_are_annotated() -> None:
    annotated = [
        known
        for path in FILES
        if path.relative_to(ROOT).parts[0] in PACKAGES
        for function in functions(path)
        for known in annotations(function)
    ]
    assert sum(annotated) / len(annotated) >= 0.99
