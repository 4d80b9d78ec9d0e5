"""Readers of catalog layouts, by name. A new layout: one file here, one line in `SOURCES`."""

from catalog.sources.base import RawTables, Source
from catalog.sources.folder import folder_tables
from catalog.sources.huggingface import huggingface_tables
from catalog.sources.movielens import movielens_tables
from catalog.sources.recbole import recbole_tables

SOURCES: dict[str, Source] = {
    "folder": Source(folder_tables, "vitrine catalog check shop"),
    "movielens": Source(movielens_tables, "vitrine catalog check ml-100k --source movielens"),
    "huggingface": Source(
        huggingface_tables, "vitrine catalog check saved-dataset --source huggingface"
    ),
    "recbole": Source(recbole_tables, "vitrine catalog check dataset/ml-1m --source recbole"),
}

__all__ = ["SOURCES", "RawTables", "Source"]
