"""Every setting with type, bounds, default and meaning, generated from the config dataclasses."""

from collections.abc import Iterator
from typing import Any

from markdown_text import code, default_text, escaped, table

from launch.arguments import Signature
from launch.cli import COMMANDS, load_command
from launch.settings import field_docs, field_types, find_config, shipped_configs
from launch.values import entry_class, nested_class, type_in_words

HEAD = ["key", "type", "default", "meaning"]


def page() -> str:
    """A section for each class of settings that a command reads, nested classes below it."""
    readers = settings_classes()
    return "\n".join(line for cls in readers for line in _class_section(cls, readers))


def shipped() -> str:
    """A table of the YAML files that come with the package, with the first comment of each."""
    rows = []
    for path in shipped_configs():
        name = f"{path.parent.name}/{path.stem}"
        about = find_config(name).read_text(encoding="utf8").splitlines()[0].removeprefix("# ")
        rows.append([code(name), escaped(about)])
    return "\n".join(table(["name", "what it is"], rows))


def settings_classes() -> dict[type, list[str]]:
    """Class of settings → the commands that read it, in the order of the command's overview."""
    readers: dict[type, list[str]] = {}
    for name in COMMANDS:
        settings = Signature.of(load_command(name)).settings
        if settings is not None:
            readers.setdefault(settings, []).append(name)
    return readers


def anchor(cls: type) -> str:
    return cls.__name__.lower()


def _class_section(cls: type, readers: dict[type, list[str]]) -> Iterator[str]:
    commands = ", ".join(
        f"[`vitrine {name}`](commands.md#vitrine-{name.replace(' ', '-')})" for name in readers[cls]
    )
    yield f"## {cls.__name__}\n"
    yield f"Read by {commands}. In Python: `{cls.__module__}.{cls.__name__}`.\n"
    yield from _keys(cls.__name__, cls(), "", readers)


def _keys(root: str, instance: Any, prefix: str, readers: dict[type, list[str]]) -> Iterator[str]:
    """A table of the instance's plain keys, then a section for each nested class."""
    docs, plain, below = field_docs(type(instance)), [], []
    for name, hint in field_types(type(instance)).items():
        key, default, doc = f"{prefix}{name}", getattr(instance, name), docs.get(name, "")
        nested, entry = nested_class(hint), entry_class(hint)
        if nested in readers:
            link = f"[{nested.__name__}](#{anchor(nested)})"
            plain.append([code(f"{key}.*"), f"settings, see {link}", "", escaped(doc)])
        elif nested is not None:
            below.append((key, default if default is not None else nested(), doc))
        elif entry is not None:
            below.append((f"{key}.NAME", entry(), doc))
        else:
            plain.append(
                [code(key), escaped(type_in_words(hint)), default_text(default), escaped(doc)]
            )
    if plain:
        yield from table(HEAD, plain)
    for key, inner, doc in below:
        yield f"### {key} ({root})\n"
        yield f"{escaped(doc)}\n"
        yield from _keys(root, inner, f"{key}.", readers)
