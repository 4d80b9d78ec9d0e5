"""Every message that the troubleshooting page quotes still stands in the code."""

import ast
import functools
import re

import pytest

from tests.docs.pages import ROOT, text_of

PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("catalog", "pretrain", "finetune", "generate", "launch")
ROW = re.compile(r"^\| `(?P<message>[^`]+)` \|", re.MULTILINE)


def quoted() -> list[str]:
    return [row["message"] for row in ROW.finditer(text_of(PAGE))]


@functools.cache
def strings() -> tuple[str, ...]:
    """Every string of the packages, `…` in place of each value."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    ]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def stands_in(message: str, text: str) -> bool:
    """Whether the message's fixed pieces stand in the text one after the other."""
    place = 0
    for piece in filter(None, (part.strip() for part in message.split("…"))):
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def test_the_page_quotes_messages() -> None:
    assert len(quoted()) >= 30


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_stands_in_the_code(message: str) -> None:
    assert any(stands_in(message, text) for text in strings())


def test_a_message_that_is_gone_is_noticed() -> None:
    assert not stands_in("no config '…': it is gone", "no config '…': it is neither a file")
    assert stands_in("no config '…': it is", "no config '…': it is neither a file")
