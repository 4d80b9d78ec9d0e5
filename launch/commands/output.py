"""Prints where a command's output is."""

import os
from pathlib import Path


def print_output_path(path: Path) -> None:
    """Prints the path on rank zero alone."""
    if os.environ.get("RANK", "0") == "0":
        print(path)
