"""Names that newcomers could not guess do not come back: no identifier, config key or option is one.

CONTRIBUTING.md, "Names", says which words to use instead.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.arguments import Signature
from launch.cli import COMMANDS, load_command
from launch.settings import describe

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "catalog",
    "pretrain",
    "finetune",
    "generate",
    "launch",
    "benchmarks",
    "tests",
    "configs",
)

NAMES = {
    "Dealt", "DEALERS", "Earlier", "Eyes", "HOW_NOT_WHAT", "InFrames", "Listening", "PictureJudge",
    "ReaderConfig", "ContentReader", "SAID", "Seen", "Shop", "Start", "TOLD", "Vouched", "WHOLE_WITH_LORA",
    "WITHOUT", "Wanted", "_Kept", "_among_all", "_among_some", "_stands_still", "_told",
    "alone_share", "as_history", "aims", "beside", "checkpoint_layers", "counted_once", "draw_for_all",
    "encode_parts", "give_up_after", "how_not_what", "keep_frozen", "leave_out", "load_shop",
    "make_for_all", "nats", "neighbours_ids", "open_painter", "open_shop", "release_layer_by_layer",
    "said_before", "spoil", "take_away", "tell_apart", "tellers", "twins", "write_for_all",
}  # fmt: skip
"""Whole names that stood for something the field has a term for."""

PARTS = {
    "told", "begun", "foretelling", "vouched", "nobody", "everybody", "somebody", "stranger",
    "strangers", "painter",
}  # fmt: skip
"""Words that no name may have among its parts (`state_of_nobody`, `StrangerScore`)."""


def parts_of(name: str) -> set[str]:
    """`state_ofNobody` → state, of, nobody."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def is_listed(name: str) -> bool:
    return name in NAMES or bool(parts_of(name) & PARTS)


def identifiers(source: str) -> Iterator[str]:
    """Names in the code; also keys of mappings and names of fields, which are strings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            yield str(node.slice.value)


def listed_in(path: Path) -> set[str]:
    """The listed names that the file has in its own name, as identifiers, or as YAML keys."""
    found = {path.stem} if is_listed(path.stem) else set()
    text = path.read_text(encoding="utf8")
    if path.suffix == ".py":
        return found | {name for name in identifiers(text) if is_listed(name)}
    return found | {key for key in re.findall(r"(?m)(\w+)\s*:", text) if is_listed(key)}


def files() -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for pattern in ("*.py", "*.yaml")
        for path in (ROOT / folder).rglob(pattern)
        if path != Path(__file__) and "mutants" not in path.parts
    )


def test_no_listed_name_is_used() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): names for path in files() if (names := listed_in(path))
    }
    assert not found


def test_no_option_or_setting_is_a_listed_name() -> None:
    found = set()
    for command in COMMANDS:
        signature = Signature.of(load_command(command))
        for cls in filter(None, (signature.options, signature.settings)):
            keys = {part for option in describe(cls) for part in option.key.split(".")}
            found |= {f"{command}: {key}" for key in keys | set(command.split()) if is_listed(key)}
    assert not found


@pytest.mark.parametrize(
    "planted",
    [
        "told = 1\n",
        "def state_of_nobody(): ...\n",
        "class StrangerScore: ...\n",
        "import generate.text.vouched\n",
        'x = {"keep_frozen": 1}\n',
        'x["alone_share"]\n',
        "f(encode_parts=2)\n",
    ],
)
def test_a_planted_name_is_found(tmp_path: Path, planted: str) -> None:
    (tmp_path / "plain.py").write_text(planted, encoding="utf8")
    assert listed_in(tmp_path / "plain.py")


def test_a_planted_file_and_a_planted_key_are_found(tmp_path: Path) -> None:
    for name, content in (("strangers.py", ""), ("plain.yaml", "data: {encode_parts: 2}\n")):
        (tmp_path / name).write_text(content, encoding="utf8")
        assert listed_in(tmp_path / name)


def test_ordinary_words_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("start = parts = average = seen = 1\n", encoding="utf8")
    assert not listed_in(tmp_path / "plain.py")
