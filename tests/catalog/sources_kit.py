"""Writes small copies of layouts, and reads them."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.roles import Roles, resolve_roles
from catalog.sources import SOURCES, RawTables


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files by path below `folder`; those that end in .gz are packed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


class Layout:
    """The raw tables of a source, read, and their roles."""

    def __init__(self, path: Path | str, source: str, **config: Any) -> None:
        settings = CatalogConfig(str(path), source=source, **config)
        self.raw: RawTables = SOURCES[source].tables(settings)
        self.items: pa.Table = self.raw.read_items()
        self.interactions: pa.Table = self.raw.read_interactions()
        overrides = [self.raw.roles, settings.roles or {}]
        self.item_roles: Roles
        self.roles: Roles
        self.item_roles, self.roles = resolve_roles(
            self.items.column_names, self.interactions.column_names, overrides
        )

    def item(self, role: str) -> list[Any]:
        return self.items[self.item_roles[role]].to_pylist()

    def of(self, role: str) -> list[Any]:
        return self.interactions[self.roles[role]].to_pylist()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.of("user_id"), self.of("item_id"), strict=True))

    @property
    def said(self) -> str:
        return "\n".join(map(str, self.raw.notes.listed))
