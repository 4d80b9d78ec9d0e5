"""Reads a command's arguments into its options and settings.

A command is a function `(options, settings)` or `(options)`; each is a dataclass, and the type
annotations say which. An option without a default is positional; `--a.b value` that is no option is
a setting. `options.config`, where the command has it, names the settings file. A command whose settings
are those of another command is a function `(options, rest)`: `rest` holds the other arguments, unparsed.
"""

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catalog.errors import VitrineError, did_you_mean
from launch.settings import (
    apply_overrides,
    field_types,
    load_settings,
    no_value,
    required_fields,
)


@dataclass(frozen=True)
class Signature:
    options: type
    settings: type | None
    positional: tuple[str, ...]
    takes_rest: bool = False

    @staticmethod
    def of(command: Callable[..., Any]) -> "Signature":
        hints = typing.get_type_hints(command)
        options = hints["options"]
        return Signature(
            options, hints.get("settings"), required_fields(options), takes_rest="rest" in hints
        )


def parse_arguments(signature: Signature, arguments: list[str]) -> dict[str, Any]:
    """The command's arguments by name: `options`, and `settings` if it has any.

    Raises VitrineError for what is missing, misspelt, too much or of the wrong type.
    """
    given, overrides = _sort(signature, arguments)
    config_file = None if "config" in field_types(signature.options) else given.pop("config", None)
    blank = signature.options(**dict.fromkeys(signature.positional, ""))
    options = apply_overrides(blank, [f"--{key}={value}" for key, value in given.items()])
    if signature.takes_rest:
        return {"options": options, "rest": overrides}
    if signature.settings is None:
        return {"options": options}
    path = config_file or getattr(options, "config", None)
    settings = load_settings(signature.settings, path, overrides)
    return {"options": options, "settings": settings}


def _sort(signature: Signature, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options by name, and the overrides of settings (or the remaining arguments) unparsed."""
    kinds = field_types(signature.options)
    settings: set[str] = set()
    if signature.settings:
        settings = set(field_types(signature.settings))
        kinds = {**kinds, "config": str}
    options: dict[str, str] = {}
    overrides: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--"):
            free = [name for name in signature.positional if name not in options]
            if free:
                options[free[0]] = argument
            elif signature.takes_rest:
                overrides.append(argument)
            else:
                raise VitrineError(f"unexpected '{argument}'; settings are given as --key value.")
            continue
        key, equals, value = argument.removeprefix("--").partition("=")
        option = key.replace("-", "_")
        if option not in kinds and signature.takes_rest:
            overrides.append(argument)
            if not equals and remaining and not remaining[0].startswith("--"):
                overrides.append(remaining.pop(0))
            continue
        if option not in kinds and key.split(".")[0] not in settings:
            known = [f"--{name}" for name in (*kinds, *settings)]
            raise VitrineError(f"unknown option '--{key}'.{did_you_mean(f'--{key}', known)}")
        if not equals and kinds.get(option) is bool:
            value = "true"
        elif not equals:
            if not remaining or remaining[0].startswith("--"):
                raise no_value(key)
            value = remaining.pop(0)
        if option in kinds:
            options[option] = value
        else:
            overrides.append(f"--{key}={value}")
    for name in signature.positional:
        if name not in options:
            raise VitrineError(f"{name.upper()} is missing; see --help.")
    return options, overrides
