"""Readers of catalog layouts, by name. A new layout: one file here, one line in `SOURCES`."""

from collections.abc import Callable

from catalog.config import CatalogConfig
from catalog.sources.base import RawTables
from catalog.sources.folder import folder_tables
from catalog.sources.huggingface import huggingface_tables
from catalog.sources.movielens import movielens_tables

SOURCES: dict[str, Callable[[CatalogConfig], RawTables]] = {
    "folder": folder_tables,
    "movielens": movielens_tables,
    "huggingface": huggingface_tables,
}

__all__ = ["SOURCES", "RawTables"]
