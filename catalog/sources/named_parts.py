"""Reads paths that name several things: `items=a.csv interactions=b.csv`."""

import shlex

from catalog.errors import VitrineError, did_you_mean


def named_parts(
    text: str, names: tuple[str, ...], needed: tuple[str, ...], example: str
) -> dict[str, str]:
    """Name → value, of `name=value name="another value"`; VitrineError for what is unknown or missing."""
    found: dict[str, str] = {}
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    for word in words:
        name, equals, value = word.partition("=")
        if name not in names or not equals or not value:
            raise VitrineError(
                f"catalog.path {text!r}: {word!r} is none of {', '.join(names)}, = and a value; write "
                f"{example}.{did_you_mean(name, names)}"
            )
        found[name] = value
    for name in needed:
        if name not in found:
            raise VitrineError(f"catalog.path {text!r} names no {name}; write {example}.")
    return found
