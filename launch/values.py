"""Checks that a value has a field's type and is within its bounds; knows nothing of its source."""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from catalog.config import Bounds


class Mismatch(Exception):
    """A value is not of the expected type."""


def typed(hint: Any, value: Any) -> Any:
    """`value` as a field of type `hint` holds it; raises Mismatch where it is of another type."""
    kind, bounds = _without_bounds(hint)
    if kind is Any:
        return value
    if kind in (int, float):
        return _number(kind, bounds, value)
    if kind in (str, bool, type(None)):
        if type(value) is kind:
            return value
    elif typing.get_origin(kind) is typing.Literal:
        for choice in typing.get_args(kind):
            if type(choice) is type(value) and choice == value:
                return value
    elif members := _union_members(kind):
        for member in members:
            with contextlib.suppress(Mismatch):
                return typed(member, value)
    elif typing.get_origin(kind) in (list, tuple) and isinstance(value, list):
        member = typing.get_args(kind)[0]
        return typing.get_origin(kind)(typed(member, one) for one in value)
    elif typing.get_origin(kind) is dict and isinstance(value, Mapping):
        names, values = typing.get_args(kind)
        return {typed(names, name): typed(values, inner) for name, inner in value.items()}
    raise Mismatch


def _number(kind: type, bounds: Bounds | None, value: Any) -> int | float:
    """`value` as an int or float; Mismatch where it is no number, not finite or out of bounds."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise Mismatch
    try:
        number = kind(value)
    except OverflowError:
        raise Mismatch from None
    if not math.isfinite(number) or (bounds is not None and not bounds.hold(number)):
        raise Mismatch
    return number


def nested_class(hint: Any) -> type | None:
    """The dataclass in `SomeConfig` or `SomeConfig | None`; None for a plain value."""
    for candidate in (hint, *_union_members(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def entry_class(hint: Any) -> type | None:
    """The dataclass in `dict[str, SomeConfig]`; None for anything else."""
    if typing.get_origin(hint) is dict:
        return nested_class(typing.get_args(hint)[1])
    return None


def _union_members(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else ()


def _without_bounds(hint: Any) -> tuple[Any, Bounds | None]:
    """`Annotated[int, Bounds(1)]` → int, Bounds(1)."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *about = typing.get_args(hint)
        return kind, next((one for one in about if isinstance(one, Bounds)), None)
    return hint, None


def takes_mapping(hint: Any) -> bool:
    return any(typing.get_origin(kind) is dict for kind in (hint, *_union_members(hint)))


def takes_text(hint: Any) -> bool:
    """Whether the type is text or a named choice, optional or not."""
    kinds = {*(_union_members(hint) or (hint,))} - {type(None)}
    return all(
        kind is str
        or (typing.get_origin(kind) is typing.Literal and isinstance(typing.get_args(kind)[0], str))
        for kind in kinds
    )


def takes_texts(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple) and typing.get_args(hint)[0] is str


PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def type_in_words(hint: Any) -> str:
    hint, bounds = _without_bounds(hint)
    if hint in PLAIN:
        return f"{PLAIN[hint]} {bounds}" if bounds else PLAIN[hint]
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    if members := _union_members(hint):
        return " or ".join(type_in_words(member) for member in members)
    if typing.get_origin(hint) in (list, tuple):
        member = type_in_words(typing.get_args(hint)[0])
        return f"a list such as [a, b], each {member}"
    if typing.get_origin(hint) is dict:
        return "a mapping such as {a: 1}"
    return getattr(hint, "__name__", str(hint))
