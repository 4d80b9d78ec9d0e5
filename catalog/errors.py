"""Errors that users can correct, reported in one line: the value, the rule and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

SEARCHED = 20_000
"""Names compared at most: difflib needs about a second for so many."""


class VitrineError(Exception):
    """A mistake that the user can correct; printed in one line without a traceback.

    Line ends in the message, which quotes names and values as they are, become blanks.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class DivergenceError(VitrineError):
    """Training diverged: it was stopped because gradients stayed non-finite (NaN or infinite)."""


class NonFiniteError(VitrineError):
    """A score, vector or metric is NaN or infinite; the message names its item or user and the cause."""


class OlderFormatError(VitrineError):
    """An artifact of a format version that this Vitrine no longer reads."""


class BrokenFileError(Exception):
    """An image, video or audio file that cannot be read; the message is the reason in a few words."""


def one_line_message(error: BaseException, longest: int = 300) -> str:
    """The message of another library's exception in one line, shortened to `longest` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}…"


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The end of an error message: " Did you mean 'title'?", or the known names if few, or "".

    `known` may be long (a catalog's ids); only its first 20,000 names are compared.
    """
    names = [str(name) for name in islice(known, SEARCHED)]
    # Ids such as "17" and "171" differ in one character of two, so the default cutoff is used.
    close = get_close_matches(str(value), names, n=3)
    if close:
        return " Did you mean " + " or ".join(repr(name) for name in close) + "?"
    if 0 < len(names) <= 12:
        return " Known: " + ", ".join(names) + "."
    return ""


class AllRanksError(VitrineError):
    """An error that every rank raises alike; rank zero prints it for all."""
