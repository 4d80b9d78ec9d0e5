"""Writes files of text that are complete or not there."""

import os
from pathlib import Path

from catalog.atomic_write import replace_file


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically, replacing an existing one."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text, encoding="utf8")
    replace_file(partial, path)
