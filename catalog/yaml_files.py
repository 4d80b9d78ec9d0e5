"""Reads and writes YAML by the core schema of YAML 1.2, where `no` is text and `1e-12` a number.

PyYAML follows YAML 1.1, and silently ignores the first of two equal keys.
"""

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import VitrineError

# YAML 1.2.2, section 10.3.2; `.1_5` and `12:30` are no numbers there.
NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
TAG = "tag:yaml.org,2002:"
MOST_VALUES = 1_000_000
"""Values that a document may hold where each alias stands for all it names: nine lines can name 10⁹."""


def read_yaml(path: Path) -> Any:
    """The one document in a file, None where it is empty.

    Raises VitrineError with the line: not YAML, not UTF-8, the same key twice in one mapping. An
    OSError stays what it is.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise VitrineError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str, as_texts: bool = False) -> Any:
    """As `read_yaml`, of a text that comes from `where`; `as_texts`: every scalar as it is written."""
    try:
        loader = (_TextLoader if as_texts else _Loader)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > MOST_VALUES:
            raise VitrineError(
                f"{where}: aliases repeat values more than {MOST_VALUES:,} times; write them out"
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "") or "not YAML"
        raise VitrineError(f"{where}{line}: {problem}") from None
    except (ValueError, RecursionError) as error:  # `!!int x`; brackets without end
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise VitrineError(f"{where}: {reason}") from None


def dump_yaml(documents: Iterable[Any]) -> str:
    """YAML text with the same meaning in YAML 1.1 and 1.2: texts that either would read as a number, or as
    true or false, are quoted."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False)


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, those of aliases each time; too many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # what an alias to a node around it counts
        inner: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [one for pair in inner for one in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_num_values(one, known) for one in parts)
    return known[id(node)]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 – PyYAML's own way

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{TAG}merge":
                continue
            key = self.construct_object(key_node)
            if key in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key_node.value}' stands there again, after line "
                    f"{lines[key]}; keep one of them",
                    problem_mark=key_node.start_mark,
                )
            lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        r"""JSON writes what lies beyond 16 bits as two escapes (`\ud83d\ude00`): one sign."""
        text = super().construct_scalar(node)
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise yaml.MarkedYAMLError(
                    problem="half of a surrogate pair is no text", problem_mark=node.start_mark
                ) from None
        return text


class _TextLoader(_Loader):
    """Reads every scalar as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 – PyYAML's own way


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


_Loader.add_constructor(f"{TAG}int", _int)
_Loader.add_constructor(f"{TAG}float", _float)
_Loader.add_constructor(f"{TAG}merge", yaml.SafeLoader.construct_yaml_str)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", BOOL, list("tTfF")),
    ("int", INT, list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"{TAG}{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"{TAG}{_tag}", _pattern, _first)
_Loader.add_implicit_resolver(f"{TAG}merge", re.compile(r"^(?:<<)$"), ["<"])
