"""Every command with its arguments and options, generated from `launch.cli.COMMANDS`."""

from collections.abc import Iterator

from markdown_text import code, default_text, escaped, table
from settings_reference import anchor

from launch.arguments import Signature
from launch.cli import COMMANDS, load_command
from launch.settings import Option, describe


def page() -> str:
    """A section for each command, by name."""
    return "\n".join(line for name in sorted(COMMANDS) for line in _section(name))


def _section(name: str) -> Iterator[str]:
    signature = Signature.of(load_command(name))
    positional = " ".join(word.upper() for word in signature.positional)
    rest = " STAGE'S OPTIONS" if signature.takes_rest else ""
    yield f"## vitrine {name}\n"
    yield f"{escaped(COMMANDS[name][1])}.\n"
    yield f"```text\nvitrine {' '.join(filter(None, [name, positional]))} [options]{rest}\n```\n"
    options = describe(signature.options)
    if options:
        yield from table(
            ["option", "type", "default", "meaning"],
            [_row(option, option.key in signature.positional) for option in options],
        )
    if signature.settings is not None:
        yield (
            "`--config FILE|NAME` reads settings from a YAML file, or from one that comes with "
            f"Vitrine. Settings: [{signature.settings.__name__}]"
            f"(settings.md#{anchor(signature.settings)}), each also as `--key VALUE`.\n"
        )


def _row(option: Option, positional: bool) -> list[str]:
    name = option.key.upper() if positional else f"--{option.key}"
    default = "required" if positional else default_text(option.default)
    return [code(name), escaped(option.kind), default, escaped(option.doc)]
