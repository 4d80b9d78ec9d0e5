"""Turns a YAML file and dotted overrides into one frozen dataclass; after that, nobody parses.

The classes live in each room's `config.py`. Every field has a default, so a file says only what it
changes. Keys are checked here, so that a misspelt one is answered with the nearest known one;
jsonargparse converts the single values.
"""

import ast
import dataclasses
import functools
import importlib.resources
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from catalog.errors import VitrineError, nearest

Settings = TypeVar("Settings")


def load_settings(
    cls: type[Settings], config_file: str | Path | None, overrides: list[str]
) -> Settings:
    """Defaults of `cls`, changed by the file, changed by the overrides.

    `overrides` are as on the command line: `--trainer.max_steps 100` or `--trainer.max_steps=100`.
    A mapping in the file is merged into a nested dataclass, but replaces a plain `dict` whole; an
    override may reach inside a `dict` (`--encoder.text.config.hidden_size 64`).

    Raises VitrineError for an unknown key, a value of the wrong type, or a file that is not there.
    """
    settings = cls()
    if config_file is not None:
        path = find_config(config_file)
        settings = _merge(settings, _read_yaml(path), "", _Origin(cls, str(path), from_file=True))
    return apply_overrides(settings, overrides)


def apply_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """`settings`, changed by `--key value` pairs; VitrineError as from `load_settings`."""
    origin = _Origin(type(settings), "the command line", from_file=False)
    for key, text in split_overrides(overrides):
        change: Any = text
        for name in reversed(key.split(".")):
            change = {name: change}
        settings = _merge(settings, change, "", origin)
    return settings


def find_config(name_or_path: str | Path) -> Path:
    """A YAML file by path, or one of those shipped with Vitrine by name (`pretrain/demo`)."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    shipped = {_config_name(path): path for path in shipped_configs()}
    name = str(name_or_path).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise VitrineError(
        f"no config '{name_or_path}': it is neither a file nor a shipped name."
        f"{nearest(name, shipped) or ' Shipped: ' + ', '.join(shipped)}"
    )


def shipped_configs() -> list[Path]:
    """The YAML files that travel with the package."""
    folder = Path(str(importlib.resources.files("configs")))
    return sorted(folder.rglob("*.yaml"))


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
                raise VitrineError(f"--{key} has no value; write --{key} VALUE.")
            value = remaining.pop(0)
        yield key, value


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where a change comes from, for messages and for reading its text."""

    root: type
    name: str
    from_file: bool

    def __str__(self) -> str:
        return f"in {self.name}" if self.from_file else f"on {self.name}"

    def unknown(self, key: str, siblings: Iterable[str]) -> VitrineError:
        """Looks beside the key first: dotted keys resemble each other by their first part alone."""
        section, dot, name = key.rpartition(".")
        if near := get_close_matches(name, siblings, n=1):
            hint = f" Did you mean '{section}{dot}{near[0]}'?"
        else:
            hint = nearest(key, [option.key for option in describe(self.root)])
        return VitrineError(f"unknown key '{key}' {self}.{hint}")

    def wrong(self, key: str, value: Any, expected: str) -> VitrineError:
        return VitrineError(f"'{key}' is {value!r} {self}; expected {expected}.")


def _merge(base: Any, changes: Mapping[str, Any], prefix: str, origin: _Origin) -> Any:
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
    nested = nested_class(hint)
    if nested is not None:
        change = _load_text(change)
        if isinstance(change, Mapping):
            base = current if current is not None else nested()
            return _merge(base, change, f"{key}.", origin)
        if change is None and type(None) in typing.get_args(hint):
            return None
        if change is None and origin.from_file:  # a heading with nothing beneath it
            return current
        raise origin.wrong(
            key, change, f"settings of its own, such as {key}.{_first_field(nested)}"
        )
    entry = entry_class(hint)
    if entry is not None and isinstance(change, Mapping):
        kept = {} if origin.from_file else dict(current or {})
        for name, inner in change.items():
            kept[name] = _change(kept.get(name, entry()), entry, inner, f"{key}.{name}", origin)
        return kept
    if isinstance(change, Mapping) and not origin.from_file:
        if not _takes_mapping(hint):
            raise origin.unknown(f"{key}.{next(iter(change))}", ())
        return _merge_mapping(current or {}, change)
    return _convert(hint, change, key, origin)


def _merge_mapping(current: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for name, value in change.items():
        inner = merged.get(name)
        if isinstance(value, Mapping):
            merged[name] = _merge_mapping(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[name] = _load_text(value)
    return merged


def _convert(hint: Any, value: Any, key: str, origin: _Origin) -> Any:
    if hint is str and isinstance(value, str):
        return value
    try:
        return _leaf_parser(hint).parse_object({"value": value}).value
    except ArgumentError:
        raise origin.wrong(key, value, _type_in_words(hint)) from None


@functools.cache
def _leaf_parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def _load_text(value: Any) -> Any:
    """What a text from the command line says as YAML: `null`, `3`, `{a: 1}`."""
    return yaml.safe_load(value) if isinstance(value, str) else value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise VitrineError(f"{path}{line}: {problem}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise VitrineError(f"{path} holds a {type(content).__name__}; expected `key: value` lines.")
    return content


def field_types(cls: type) -> dict[str, Any]:
    """Field name → resolved type, in the order they are written."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


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


def _takes_mapping(hint: Any) -> bool:
    return any(typing.get_origin(kind) is dict for kind in (hint, *_union_members(hint)))


def _first_field(cls: type) -> str:
    return dataclasses.fields(cls)[0].name


def _type_in_words(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint in plain:
        return plain[hint]
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    if members := _union_members(hint):
        return " or ".join(_type_in_words(member) for member in members)
    if typing.get_origin(hint) in (list, tuple):
        member = _type_in_words(typing.get_args(hint)[0])
        return f"a list such as [a, b], each {member}"
    if typing.get_origin(hint) is dict:
        return "a mapping such as {a: 1}"
    return getattr(hint, "__name__", str(hint))


def _describe(cls: type, instance: Any, prefix: str) -> Iterator[Option]:
    docs = field_docs(cls)
    for name, hint in field_types(cls).items():
        key, default = f"{prefix}{name}", getattr(instance, name)
        nested = nested_class(hint)
        if nested is None:
            yield Option(key, _type_in_words(hint), default, docs.get(name, ""))
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
    folder = Path(str(importlib.resources.files("configs")))
    return path.relative_to(folder).with_suffix("").as_posix()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
