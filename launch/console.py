"""Prints a command's progress on standard error, beside what it prints on standard output."""

import sys


def print_status(line: str) -> None:
    """Prints one line on standard error at once."""
    print(line, file=sys.stderr, flush=True)
