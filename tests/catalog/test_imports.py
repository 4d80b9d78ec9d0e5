"""The package opens quickly: settings and errors cost nothing, and torch is never touched."""

import subprocess
import sys
from pathlib import Path

import pytest

import catalog

ROOT = Path(__file__).parents[2]


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*(name for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_settings_import_neither_arrow_nor_numpy():
    loaded = loaded_after(
        "from catalog.config import CatalogConfig\nfrom catalog import VitrineError, SplitConfig"
    )
    assert "catalog.config" in loaded
    assert not loaded & {"numpy", "pyarrow", "datasets", "PIL", "yaml"}


def test_the_catalog_never_imports_torch():
    names = ["artifacts", "catalog", "doctor.run", "splits"]
    loaded = loaded_after("import " + ", ".join(f"catalog.{name}" for name in names))
    assert "catalog.doctor.run" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("name", catalog.__all__)
def test_every_export_is_there(name):
    assert getattr(catalog, name).__name__ == name


def test_an_unknown_attribute_of_the_package_raises():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        catalog.nothing  # noqa: B018
