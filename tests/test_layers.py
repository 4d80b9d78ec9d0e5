"""Each room imports only those before it, and settings never import torch."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("catalog", "pretrain", "finetune", "generate", "launch")


def imported_names(source: str) -> Iterator[str]:
    """Top-level names of everything imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def violations(root: Path) -> list[str]:
    found = []
    for place, room in enumerate(ROOMS):
        later = set(ROOMS[place + 1 :])
        for path in sorted((root / room).rglob("*.py")):
            without_torch = room == "catalog" or path.name == "config.py"
            forbidden = later | ({"torch", "pytorch_lightning"} if without_torch else set())
            for name in sorted(forbidden & set(imported_names(path.read_text("utf-8")))):
                found.append(f"{path.relative_to(root).as_posix()} imports {name}")
    return found


def test_rooms_import_only_those_before_them() -> None:
    assert violations(ROOT) == []


def test_planted_imports_are_found(tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "catalog" / "planted.py").write_text("import torch\n")
    (tmp_path / "pretrain" / "planted.py").write_text(
        "def f():\n    from finetune.config import FinetuneConfig\n    return FinetuneConfig\n"
    )
    (tmp_path / "generate" / "planted").mkdir()
    (tmp_path / "generate" / "planted" / "config.py").write_text("from torch import nn\n")

    assert violations(tmp_path) == [
        "catalog/planted.py imports torch",
        "pretrain/planted.py imports finetune",
        "generate/planted/config.py imports torch",
    ]


def test_settings_and_catalog_bring_no_torch_by_any_way() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.stem != "__main__" and (path.name == "config.py" or room == "catalog")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, modules
