"""The pages of prose, and the code that stands in them."""

import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCED = re.compile(r"^```(?P<kind>[\w{}-]*)[^\n]*\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`(?P<code>[^`\n]+)`(?!`)")


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(kind: str) -> list[tuple[str, str]]:
    """(page, body) of each fenced block of that kind."""
    return [
        (name_of(page), block["body"])
        for page in PAGES
        for block in FENCED.finditer(text_of(page))
        if block["kind"] == kind
    ]


def inline_code() -> list[tuple[str, str]]:
    """(page, code) of each span of inline code outside fenced blocks and roles."""
    return [
        (name_of(page), span["code"])
        for page in PAGES
        for span in INLINE.finditer(FENCED.sub("", re.sub(r"\{\w+\}`[^`]*`", "", text_of(page))))
    ]


def command_lines() -> list[tuple[str, str]]:
    """(page, command) of each `vitrine …` line in blocks of shell and in inline code."""
    lines = [
        (page, line)
        for page, body in blocks("sh")
        for line in body.replace("\\\n", " ").splitlines()
    ]
    lines += [(page, code) for page, code in inline_code() if code.startswith("vitrine ")]
    parts = [(page, part.split(" #")[0]) for page, line in lines for part in line.split("&&")]
    return [
        (page, part.strip())
        for page, part in parts
        if re.match(r"\s*(\S*/)?vitrine ", part) and "COMMAND" not in part and "…" not in part
    ]
