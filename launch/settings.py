"""Turns a YAML file and dotted overrides into one frozen dataclass; nothing is parsed after that.

The classes are in each package's `config.py`. Every field has a default, so a file says only what it
changes. Keys are checked here, so that a misspelt one is answered with the nearest known one, and so
are types and bounds (`catalog.config.Bounds`). Nothing is guessed: a text stays the text it is, and a
value of another type than its field's is an error. PyYAML is imported where YAML is read, so that help
pages do without it.
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import configs
from catalog.errors import VitrineError, did_you_mean
from launch.values import (
    Mismatch,
    entry_class,
    nested_class,
    takes_mapping,
    takes_text,
    takes_texts,
    type_in_words,
    typed,
)

Settings = TypeVar("Settings")
CONFIGS = Path(configs.__file__).parent
LONGEST_SHOWN = 200
"""Letters of a value that a message shows."""


def load_settings(
    cls: type[Settings], config_file: str | Path | None, overrides: list[str]
) -> Settings:
    """Defaults of `cls`, changed by the file, changed by the overrides.

    `overrides` are as on the command line: `--trainer.max_steps 100` or `--trainer.max_steps=100`.
    A mapping in the file is merged into a nested dataclass, but replaces a plain `dict` whole; an
    override may reach inside a `dict` (`--encoder.text.config.hidden_size 64`).

    On the command line a field of text takes what is written there, sign for sign (`--user null`);
    any other is read as YAML (`--tasks '[a, b]'`, `--trainer '{max_steps: 3}'`).

    Raises VitrineError for an unknown key, a duplicate key, a value of the wrong type or
    out of its bounds, or a file that is not there.
    """
    settings = cls()
    if config_file is not None:
        path = find_config(config_file)
        settings = _merge(settings, _read_mapping(path), "", _Origin(cls, f"in {path}", typed=True))
    return apply_overrides(settings, overrides)


def apply_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """`settings`, changed by `--key value` pairs; VitrineError as from `load_settings`."""
    origin = _Origin(type(settings), "on the command line", typed=False)
    for key, text in split_overrides(overrides):
        change: Any = text
        for name in reversed(key.split(".")):
            change = {name: change}
        settings = _merge(settings, change, "", origin)
    return settings


def find_config(name_or_path: str | Path) -> Path:
    """A YAML file by path, or one of those shipped with Vitrine by name (`pretrain/small`)."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    shipped = {_config_name(path): path for path in shipped_configs()}
    name = str(name_or_path).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise VitrineError(
        f"no config '{name_or_path}': it is neither a file nor a shipped name."
        f"{did_you_mean(name, shipped) or ' Shipped: ' + ', '.join(shipped)}"
    )


def shipped_configs() -> list[Path]:
    """The YAML files that travel with the package."""
    return sorted(CONFIGS.rglob("*.yaml"))


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain mappings, lists and scalars, as YAML or JSON would hold them."""
    return _plain(dataclasses.asdict(settings))


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting as a help page shows it."""

    key: str
    kind: str
    default: Any
    doc: str


def describe(cls: type) -> list[Option]:
    """Every setting below `cls`, nested ones by dotted key, in the order they are written."""
    return list(_describe(cls, cls(**dict.fromkeys(required_fields(cls), "")), ""))


def required_fields(cls: type) -> tuple[str, ...]:
    """Fields without a default: none in settings, the positional ones in a command's options."""
    missing = dataclasses.MISSING
    return tuple(
        field.name
        for field in dataclasses.fields(cls)
        if field.default is missing and field.default_factory is missing
    )


def split_overrides(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """`--a.b 1 --a.c=2` → (a.b, 1), (a.c, 2)."""
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--"):
            raise VitrineError(
                f"unexpected '{argument}'; settings are given as --key value, such as "
                "--trainer.max_steps 100."
            )
        key, equals, value = argument.removeprefix("--").partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise no_value(key)
            value = remaining.pop(0)
        yield key, value


def no_value(key: str) -> VitrineError:
    return VitrineError(
        f"--{key} has no value; write --{key} VALUE, or --{key}=VALUE where it begins with --."
    )


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where a change comes from, for messages and for reading it."""

    root: type
    place: str
    typed: bool
    """Whether its values have types (YAML was read), or are texts of the command line."""

    def __str__(self) -> str:
        return self.place

    def unknown(self, key: str, siblings: Iterable[str]) -> VitrineError:
        """Looks beside the key first: dotted keys resemble each other by their first part alone."""
        section, dot, name = key.rpartition(".")
        if near := get_close_matches(name, siblings, n=1):
            hint = f" Did you mean '{section}{dot}{near[0]}'?"
        else:
            hint = did_you_mean(key, [option.key for option in describe(self.root)])
        return VitrineError(f"unknown key '{key}' {self}.{hint}")

    def wrong(self, key: str, value: Any, expected: str) -> VitrineError:
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
        return VitrineError(f"'{key}' is {shown} {self}; expected {expected}.")

    def read(self, key: str, change: Any) -> "tuple[Any, _Origin]":
        """What a text of the command line says as YAML: `null`, `3`, `{a: 1}`."""
        if self.typed or not isinstance(change, str):
            return change, self
        from catalog.yaml_files import parse_yaml

        read = parse_yaml(change, f"'{key}' {self}")
        return read, dataclasses.replace(self, typed=True)


def _merge(base: Any, changes: Mapping[Any, Any], prefix: str, origin: _Origin) -> Any:
    hints = field_types(type(base))
    replaced = {}
    for name, change in changes.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise origin.unknown(key, hints)
        replaced[name] = _change(getattr(base, name), hints[name], change, key, origin)
    return dataclasses.replace(base, **replaced)


def _change(current: Any, hint: Any, change: Any, key: str, origin: _Origin) -> Any:
    """The field's new value: merged where it is nested, converted where it is a leaf."""
    if isinstance(change, Mapping) and not origin.typed:
        return _reach_inside(current, hint, change, key, origin)
    if not origin.typed and takes_text(hint):
        return _convert(hint, change, key, origin)
    if not origin.typed and isinstance(change, str) and takes_texts(hint):
        return _texts(hint, change, key, origin)
    value, within = origin.read(key, change)
    if (nested := nested_class(hint)) is not None:
        return _section(current, hint, nested, value, key, within, optional=origin.typed)
    if value is None and origin.typed and typing.get_origin(hint) is dict:
        return current  # a heading with nothing beneath it
    if (entry := entry_class(hint)) is not None and isinstance(value, Mapping):
        return {
            _name(name, key, within): _section(
                entry(), entry, entry, inner, f"{key}.{name}", within, optional=True
            )
            for name, inner in value.items()
        }
    return _convert(hint, value, key, within)


def _section(
    current: Any, hint: Any, cls: type, value: Any, key: str, origin: _Origin, optional: bool
) -> Any:
    """A nested dataclass changed by a mapping; `optional`: a heading with nothing beneath it changes
    nothing."""
    if isinstance(value, Mapping):
        return _merge(current if current is not None else cls(), value, f"{key}.", origin)
    if value is None and type(None) in typing.get_args(hint):
        return None
    if value is None and optional:
        return current
    raise origin.wrong(key, value, f"settings of its own, such as {key}.{_first_field(cls)}")


def _reach_inside(
    current: Any, hint: Any, change: Mapping[str, Any], key: str, origin: _Origin
) -> Any:
    """`--key.name VALUE`: what the field holds, changed at that name alone."""
    if (nested := nested_class(hint)) is not None:
        return _merge(current if current is not None else nested(), change, f"{key}.", origin)
    if (entry := entry_class(hint)) is not None:
        entries = dict(current or {})
        for name, inner in change.items():
            entries[name] = _change(
                entries.get(name, entry()), entry, inner, f"{key}.{name}", origin
            )
        return entries
    if not takes_mapping(hint):
        raise origin.unknown(f"{key}.{next(iter(change))}", ())
    return _convert(hint, _merge_mapping(current or {}, change, key, origin), key, origin)


def _merge_mapping(
    current: dict[str, Any], change: Mapping[str, Any], key: str, origin: _Origin
) -> dict[str, Any]:
    merged = dict(current)
    for name, value in change.items():
        inner, inside = merged.get(name), f"{key}.{name}"
        if isinstance(value, Mapping):
            section = inner if isinstance(inner, dict) else {}
            merged[name] = _merge_mapping(section, value, inside, origin)
        else:
            merged[name], _ = origin.read(inside, value)
    return merged


def _convert(hint: Any, value: Any, key: str, origin: _Origin) -> Any:
    try:
        return typed(hint, value)
    except Mismatch:
        raise origin.wrong(key, value, type_in_words(hint)) from None


def _texts(hint: Any, change: str, key: str, origin: _Origin) -> Any:
    """`[a, 007, null]` for a field that holds texts: each of them as it is written."""
    from catalog.yaml_files import parse_yaml

    parsed = parse_yaml(change, f"'{key}' {origin}", as_texts=True)
    return _convert(hint, parsed, key, origin)


def _name(name: Any, key: str, origin: _Origin) -> str:
    if not isinstance(name, str):
        raise VitrineError(
            f"'{key}' has an entry {name!r} {origin}; a name is text, so write '{name}' in quotes."
        )
    return name


def _read_mapping(path: Path) -> Mapping[Any, Any]:
    from catalog.yaml_files import read_yaml

    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise VitrineError(f"{path} holds a {type(content).__name__}; expected `key: value` lines.")
    return content


def field_types(cls: type) -> dict[str, Any]:
    """Field name → resolved type, in the order they are written."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _first_field(cls: type) -> str:
    return dataclasses.fields(cls)[0].name


def _describe(cls: type, instance: Any, prefix: str) -> Iterator[Option]:
    docs = field_docs(cls)
    for name, hint in field_types(cls).items():
        key, default = f"{prefix}{name}", getattr(instance, name)
        nested = nested_class(hint)
        if nested is None:
            yield Option(key, type_in_words(hint), default, docs.get(name, ""))
        else:
            inner = default if default is not None else nested()
            yield from _describe(nested, inner, f"{key}.")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Field name → the string written beneath it."""
    docs: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(ancestor):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, below in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[statement.target.id] = " ".join(below.value.value.split())
    return docs


def _config_name(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
