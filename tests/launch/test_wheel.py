"""A built wheel holds the packages and the configs, and nothing else at the top."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"catalog", "pretrain", "finetune", "generate", "launch", "configs"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel of a copy of the sources, so that no build folder is left in them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    ignore = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, sources / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, sources], check=True)
    (wheel,) = folder.glob("vitrine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_only_our_packages_are_at_the_top(unpacked: Path) -> None:
    top = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert top == PACKAGES


def test_every_source_and_config_travels(unpacked: Path) -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".yaml", ".html", ".css", ".js", ".svg"}:
                assert (unpacked / path.relative_to(ROOT)).is_file()


def test_shipped_configs_are_found_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = "from launch.settings import shipped_configs; print(*shipped_configs(), sep='\\n')"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {Path(line).relative_to(unpacked) for line in shown.stdout.split()}
    assert found == {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    assert found
