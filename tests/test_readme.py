"""Every command in the README is one the command line understands."""

import re
import shlex
from pathlib import Path

import pytest

from launch.arguments import Signature, parse_arguments
from launch.cli import find_command, load_command

README = Path(__file__).parents[1] / "README.md"


def commands() -> list[str]:
    """`vitrine …` lines of fenced blocks and of inline code."""
    text = README.read_text(encoding="utf8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    found = [line.split("#")[0] for line in blocks.splitlines()]
    found += re.findall(r"`(vitrine [^`]*)`", text)
    found = [part for line in found for part in line.split("&&") if "vitrine " in part]
    return [line.strip() for line in found if "COMMAND" not in line and "…" not in line]


def test_the_readme_shows_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("line", commands())
def test_it_parses(line: str) -> None:
    words = shlex.split(line)
    start = next(place for place, word in enumerate(words) if word.endswith("vitrine"))
    name, rest = find_command(words[start + 1 :])
    parse_arguments(Signature.of(load_command(name)), rest)


def test_the_test_line_is_the_one_ci_runs() -> None:
    line = "./install --test && .venv/bin/pytest -n 2"
    assert line in README.read_text(encoding="utf8")
