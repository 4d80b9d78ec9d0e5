"""Whatever the README, CONTRIBUTING.md and the documentation show as code exists and parses."""

import ast
import functools
import importlib
import io
import re
import shlex
import tokenize
from pathlib import Path

import pytest
import yaml

from launch.arguments import Signature, parse_arguments
from launch.cli import COMMANDS, find_command, load_command
from launch.settings import describe, load_settings
from tests.docs.pages import ROOT, blocks, command_lines, inline_code

PACKAGES = ("catalog", "pretrain", "finetune", "generate", "launch", "benchmarks")
TOOLS = ("install", ".ci/run", "benchmarks")
"""Where options of commands other than `vitrine` are defined."""


@functools.cache
def known_keys() -> frozenset[str]:
    """Every option and setting of every command, and every beginning of a dotted one."""
    keys: set[str] = set()
    for name in COMMANDS:
        signature = Signature.of(load_command(name))
        for cls in filter(None, (signature.options, signature.settings)):
            for option in describe(cls):
                parts = option.key.split(".")
                keys |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return frozenset(keys)


@functools.cache
def known_names() -> frozenset[str]:
    """Every identifier of the packages, benchmarks and tests, and every word of a string in them."""
    names: set[str] = set()
    for folder in (*PACKAGES, "tests", "docs", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf8")).readline)
            for token in tokens:
                if token.type in (tokenize.NAME, tokenize.STRING):
                    names |= set(re.findall(r"\w+", token.string))
        for path in (ROOT / folder).rglob("*.yaml"):
            names |= set(re.findall(r"\w+", path.read_text("utf8")))
    return frozenset(names)


def test_there_is_code_to_test() -> None:
    assert len(command_lines()) >= 20
    assert len(inline_code()) >= 100


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_command_parses(page: str, line: str) -> None:
    words = shlex.split(line)
    start = next(place for place, word in enumerate(words) if word.endswith("vitrine"))
    if words[start + 1].startswith("--"):
        return
    name, rest = find_command(words[start + 1 :])
    if not rest and Signature.of(load_command(name)).positional:
        return  # the command is only named
    parsed = parse_arguments(Signature.of(load_command(name)), rest)
    if name in ("launch", "launch plan", "launch simulate"):  # the stage's own options follow
        stage = parsed["options"].stage.replace("-", " ")
        parse_arguments(Signature.of(load_command(stage)), parsed["rest"])


@pytest.mark.parametrize(("page", "body"), blocks("yaml"))
def test_a_yaml_block_loads(page: str, body: str, tmp_path: Path) -> None:
    """One that begins with `# vitrine COMMAND --config` is read as that command's settings."""
    content = yaml.safe_load(body)
    assert isinstance(content, dict), page
    command = re.match(r"# vitrine (.+) --config", body)
    if command is not None:
        settings = Signature.of(load_command(command[1])).settings
        assert settings is not None
        file = tmp_path / "settings.yaml"
        file.write_text(body, encoding="utf8")
        load_settings(settings, file, [])


@pytest.mark.parametrize(("page", "body"), blocks("python"))
def test_a_python_block_compiles_and_its_imports_resolve(page: str, body: str) -> None:
    for node in ast.walk(ast.parse(body)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page}: {node.module} has no {alias.name}"


def test_an_option_named_in_prose_exists() -> None:
    tools = "".join(
        path.read_text("utf8")
        for tool in TOOLS
        for path in ([ROOT / tool] if (ROOT / tool).is_file() else (ROOT / tool).rglob("*.py"))
    )
    unknown = []
    for page, code in inline_code():
        for option in re.findall(r"(?:^|\s)--([\w.-]+)", code):
            if code.startswith("vitrine ") or f"--{option}" in tools:
                continue
            if option.startswith("dotted."):
                continue
            if option.replace("-", "_") not in known_keys() and not _inside_a_mapping(option):
                unknown.append(f"{page}: --{option}")
    assert not unknown


def _inside_a_mapping(key: str) -> bool:
    """`encoder.text.config.hidden_size`, `extract.NAME.layer`: keys below one that holds a mapping."""
    parts = key.split(".")
    return any(
        ".".join(parts[:end]) in known_keys()
        and not any(one.startswith(".".join(parts[:end]) + ".") for one in known_keys())
        for end in range(1, len(parts))
    )


def test_a_path_named_in_prose_exists() -> None:
    gone = [
        f"{page}: {code}"
        for page, code in inline_code()
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", code)
        and code.split("/")[0] in (*PACKAGES, "tests", "docs", "configs", ".ci")
        and not (ROOT / code).exists()
        and not (ROOT / f"{code}.py").exists()
    ]
    assert not gone


def test_a_name_in_prose_stands_in_the_code() -> None:
    """Identifiers with an underscore or an inner capital, dotted or called, in inline code."""
    unknown = []
    for page, code in inline_code():
        plain = re.sub(r"\(.*\)$", "", code)
        if not re.fullmatch(r"[A-Za-z_][\w.]*", plain) or plain.endswith((".py", ".md", ".yaml")):
            continue
        for part in plain.split("."):
            distinctive = "_" in part.strip("_") or re.search(r"[a-z][A-Z]", part)
            if (distinctive or "." in plain) and part and part not in known_names():
                unknown.append(f"{page}: {code}")
    assert not unknown
