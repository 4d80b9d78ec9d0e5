"""The public names of each package with signatures and docstrings, read from the source.

Nothing but the packages' light `__init__` modules is imported, so that the page needs no torch.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("catalog", "pretrain", "finetune", "generate.text", "generate.image")
Definition = ast.ClassDef | ast.FunctionDef


def page() -> str:
    """A section for each package, and in it one for each public name."""
    return "\n".join(line for package in PACKAGES for line in _package(package))


def definition(module: str, name: str) -> Definition:
    """The class or function `name` as it is written in `module`."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf8")).body:
        if isinstance(node, Definition) and node.name == name:
            return node
    raise LookupError(f"{module} defines no class or function {name}")


def _package(package: str) -> Iterator[str]:
    module = importlib.import_module(package)
    yield f"## {package}\n\n{inspect.cleandoc(module.__doc__ or '')}\n"
    for name, home in sorted(module._HOMES.items()):
        yield from _entry(name, home, definition(home, name))


def _entry(name: str, home: str, node: Definition) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"Defined in `{home}`.\n"
    if isinstance(node, ast.FunctionDef):
        yield _signature(node)
        yield _doc(node)
        return
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    decorators = "".join(f"@{ast.unparse(one)}\n" for one in node.decorator_list)
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    shown = "".join(f"\n    {ast.unparse(one)}" for one in fields)
    yield f"```python\n{decorators}class {name}{f'({bases})' if bases else ''}:{shown or ' ...'}\n```\n"
    yield _doc(node)
    for method in node.body:
        is_public = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
        if isinstance(method, ast.FunctionDef) and (is_public or method.name == "__init__"):
            yield _signature(method)
            yield _doc(method)


def _signature(node: ast.FunctionDef) -> str:
    decorators = "".join(f"@{ast.unparse(one)}\n" for one in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"```python\n{decorators}def {node.name}({ast.unparse(node.args)}){returns}: ...\n```\n"


def _doc(node: Definition) -> str:
    return (ast.get_docstring(node) or "") + "\n"
