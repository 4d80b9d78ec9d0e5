"""Raw tables of a catalog, as a source returns them: their files and how to read them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class RawTables:
    """A catalog as it lies on disk, not yet read: an unchanged one is never parsed again."""

    name: str
    """What the catalog is called in reports."""
    folder: Path
    """Base of relative image paths; no image may lie outside it."""
    files: list[Path]
    """Files whose bytes decide what the tables hold; they go into the fingerprint."""
    item_files: list[Path]
    """Those of `files` that decide what the items table holds."""
    read_items: Callable[[], pa.Table]
    """Reads the items, one row each; columns as they come, ids of text files as text."""
    read_interactions: Callable[[], pa.Table]
    """Reads the interactions, one row each, in the file's order."""
    read_edges: Callable[[], pa.Table] | None = None
    """Reads the links between items, one row each, the two ids in its first two columns."""
    roles: dict[str, Any] = field(default_factory=dict)
    """Role → column the source is sure of; catalog.yaml and the config override them."""
