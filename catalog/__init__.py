"""Catalogs of items and interactions: loading, checks, splits, the demo world, artifacts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.artifacts import is_complete, open_artifact, write_artifact
    from catalog.catalog import Catalog, load_catalog
    from catalog.config import CatalogConfig, SplitConfig
    from catalog.doctor.run import check_catalog
    from catalog.errors import VitrineError
    from catalog.splits import Split, load_split, make_split

_HOMES = {
    "Catalog": "catalog.catalog",
    "CatalogConfig": "catalog.config",
    "Split": "catalog.splits",
    "SplitConfig": "catalog.config",
    "VitrineError": "catalog.errors",
    "check_catalog": "catalog.doctor.run",
    "is_complete": "catalog.artifacts",
    "load_catalog": "catalog.catalog",
    "load_split": "catalog.splits",
    "make_split": "catalog.splits",
    "open_artifact": "catalog.artifacts",
    "write_artifact": "catalog.artifacts",
}

__all__ = [
    "Catalog",
    "CatalogConfig",
    "Split",
    "SplitConfig",
    "VitrineError",
    "check_catalog",
    "is_complete",
    "load_catalog",
    "load_split",
    "make_split",
    "open_artifact",
    "write_artifact",
]


def __getattr__(name: str) -> Any:
    # Imported on first access: reading a config for --help must not wait for pyarrow and datasets.
    if name not in _HOMES:
        raise AttributeError(f"module 'catalog' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
