"""How a person's mistake is reported: one line with the value, the rule and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

SEARCHED = 20_000
"""Names compared at most: difflib needs about a second for so many."""


class VitrineError(Exception):
    """A mistake that the person who runs Vitrine can put right; printed without a traceback."""


class DivergenceError(VitrineError):
    """A training that was given up, as its gradients were not finite any more."""


class NonFiniteError(VitrineError):
    """A number that would rank, select or be averaged is nan or infinite; says whose it is, and why."""


class BrokenFileError(Exception):
    """A picture, film or sound that cannot be read; the message is the reason, in a few words."""


def one_line_message(error: BaseException, longest: int = 300) -> str:
    """What another library says of a failure, for the end of a message of ours."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= longest else f"{said[:longest]}…"


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The end of an error message: " Did you mean 'title'?", or the known names if few, or "".

    `known` may be long (a catalog's ids); only its first 20,000 names are compared.
    """
    names = [str(name) for name in islice(known, SEARCHED)]
    # Ids such as "17" and "171" differ in one sign of two: the default cutoff is kept.
    close = get_close_matches(str(value), names, n=3)
    if close:
        return " Did you mean " + " or ".join(repr(name) for name in close) + "?"
    if 0 < len(names) <= 12:
        return " Known: " + ", ".join(names) + "."
    return ""


class AllRanksError(VitrineError):
    """One that every rank of a training raises alike; rank zero has printed it for all."""
