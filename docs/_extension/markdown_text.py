"""Writes Markdown: escapes plain text, lays out tables."""

import re
from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Plain text as Markdown that reads the same; spans of code stay as they are."""
    spans = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        span if span.startswith("`") else re.sub(r"([\\<*_\[\]{}$])", r"\\\1", span)
        for span in spans
    )


def code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


def default_text(default: object) -> str:
    """A default as it is written in YAML; nothing where it is empty."""
    if default is None:
        return code("null")
    if isinstance(default, bool):
        return code(str(default).lower())
    if isinstance(default, list | tuple):
        return code(f"[{', '.join(map(str, default))}]")
    if isinstance(default, dict):
        return "a mapping" if default else ""
    return code(default)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [_row(head), _row(["---"] * len(head))]
    return [*lines, *(_row(row) for row in rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
