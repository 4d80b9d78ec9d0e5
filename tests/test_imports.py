"""Packages import in one direction: import-linter's contracts (pyproject.toml), and no import cycles."""

import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog", "pretrain", "finetune", "generate", "launch", "configs")


def broken_contracts(root: Path) -> list[str]:
    """Names of the contracts that the packages below `root` break."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return [line.removesuffix(" BROKEN").strip() for line in lines if line.endswith(" BROKEN")]


def test_all_contracts_hold() -> None:
    assert broken_contracts(ROOT) == []


def test_planted_imports_break_their_contracts(tmp_path: Path) -> None:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = {
        "catalog/planted.py": "import torch\n",
        "pretrain/planted.py": "def f():\n    import finetune.config\n",
        "generate/text/planted.py": "import generate.image.config\n",
        "launch/report/planted.py": "def f():\n    import launch.compare.run\n",
    }
    for name, source in planted.items():
        (tmp_path / name).write_text(source)
    assert [name.split()[0] for name in broken_contracts(tmp_path)] == [
        "Packages",
        "The",
        "Subpackages",
        "Catalog",
    ]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count; CycleError names the modules of a cycle."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    ).prepare()


def test_settings_and_catalog_bring_no_torch_by_any_way() -> None:
    """Also not by way of other libraries."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.stem != "__main__" and (path.name == "config.py" or package == "catalog")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, modules
