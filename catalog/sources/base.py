"""Raw tables of a catalog, as a source returns them: their files and how to read them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.sources.feature_files import FeatureFile


@dataclass(frozen=True)
class RawTables:
    """The files of a catalog and functions that read them, called only if the catalog is not cached."""

    name: str
    """Name of the catalog in reports."""
    folder: Path
    """Base of relative image paths; no image may lie outside it."""
    files: list[Path]
    """Files with the content of the tables; their bytes are part of the fingerprint."""
    item_files: list[Path]
    """Those of `files` with the content of the items table."""
    read_items: Callable[[], pa.Table]
    """Reads the items, one row each; columns unchanged, ids of text files as text."""
    read_interactions: Callable[[], pa.Table]
    """Reads the interactions, one row each, in the file's order."""
    read_edges: Callable[[], pa.Table] | None = None
    """Reads the links between items, one row each, the two ids in its first two columns."""
    roles: dict[str, Any] = field(default_factory=dict)
    """Role → column, as known for this layout; catalog.yaml and the config override them."""
    notes: Notes = field(default_factory=Notes)
    """What was decided, dropped or left empty; the functions above add to it as they read."""
    item_batches: Callable[[], Iterator[pa.RecordBatch]] | None = None
    """Reads the items in batches, with embedded pictures; None: `read_items` alone reads them."""
    interaction_batches: Callable[[], Iterator[pa.RecordBatch]] | None = None
    """Reads the interactions in batches; None: `read_interactions` alone reads them."""
    features: list[FeatureFile] = field(default_factory=list)
    """Files of precomputed features, which an import writes beside the tables."""
    queries: tuple[str, ...] = ()
    """What is read of `files`, where that is not their content: part of the fingerprint."""
    is_volatile: bool = False
    """Whether the tables may change without any file that tells: they are imported, not read directly."""


@contextmanager
def _missing_column(where: str) -> Iterator[None]:
    """Names the column that a layout's file lacks."""
    try:
        yield
    except KeyError as error:
        found = re.fullmatch(
            r'Field "(.*)" does not exist in schema', str(error.args[0]), re.DOTALL
        )
        if found is None:
            raise
        raise VitrineError(
            f"{where} has no column {found[1]}, which this layout needs; export the files again, or "
            "correct their first rows."
        ) from error


def _naming_columns(
    tables: Callable[[CatalogConfig], RawTables],
) -> Callable[[CatalogConfig], RawTables]:
    """The function, which with those of its `RawTables` raises VitrineError for a missing column."""

    def reading(read: Callable[[], Any], where: str) -> Callable[[], Any]:
        def named() -> Any:
            with _missing_column(where):
                return read()

        return named

    def batches(read: Callable[[], Iterator[Any]], where: str) -> Callable[[], Iterator[Any]]:
        def named() -> Iterator[Any]:
            with _missing_column(where):
                yield from read()

        return named

    @wraps(tables)
    def found(config: CatalogConfig) -> RawTables:
        with _missing_column(config.path):
            raw = tables(config)
        changed: dict[str, Any] = {}
        for name in ("read_items", "read_interactions", "read_edges"):
            if (read := getattr(raw, name)) is not None:
                changed[name] = reading(read, config.path)
        for name in ("item_batches", "interaction_batches"):
            if (read := getattr(raw, name)) is not None:
                changed[name] = batches(read, config.path)
        return replace(raw, **changed)

    return found


@dataclass(frozen=True)
class Source:
    """A layout of files: how it is read, and how it is called."""

    tables: Callable[[CatalogConfig], RawTables]
    """Finds the files and returns how they are read; its docstring says what they are."""
    example: str
    """A command line that reads such a layout."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", _naming_columns(self.tables))

    @property
    def description(self) -> str:
        """The first sentence of the docstring of `tables`, in one line."""
        text = " ".join((self.tables.__doc__ or "").split())
        return text.partition(". ")[0].rstrip(".")
