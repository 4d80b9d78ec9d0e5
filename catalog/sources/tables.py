"""Reads any two tables by their paths."""

import os
from functools import partial
from glob import glob
from pathlib import Path

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.notes import Notes
from catalog.reading import batch_reader, read_table
from catalog.reading.files import table_files
from catalog.sources.base import RawTables
from catalog.sources.finding import files_in, refuse_subset
from catalog.sources.named_parts import named_parts

NAMES = ("items", "interactions", "edges")
INTERACTIONS = (
    "interactions",
    "ratings",
    "reviews",
    "transactions",
    "events",
    "purchases",
    "orders",
)
"""Names of tables that lie beside an items table, the first that is there."""


def table_tables(config: CatalogConfig) -> RawTables:
    """Any two tables: the path is `items=a.csv interactions=b.parquet` (and `edges=c.tsv`), or the
    file with the items, beside which `interactions.*`, `ratings.*`, `reviews.*`, `transactions.*`,
    `events.*`, `purchases.*` or `orders.*` lies. Each may be a folder of parts, or a pattern such
    as `data/*.parquet`. Roles are guessed by columns' names.
    """
    refuse_subset(config, "table")
    notes = Notes()
    paths = _named(config.path) if "=" in config.path else _beside(config.path, notes)
    for path in (one for found in paths.values() for one in found):
        if not path.exists():
            near = os.listdir(path.parent) if path.parent.is_dir() else []
            raise VitrineError(f"{path} does not exist.{did_you_mean(path.name, near)}")
    files = {name: [file for one in found for file in _files(one)] for name, found in paths.items()}
    items, interactions, edges = (files.get(name, []) for name in NAMES)
    first = paths["items"][0]
    stem = first.name.split(".")[0]
    return RawTables(
        name=first.resolve().parent.name if stem.lower() == "items" else stem,
        folder=first.resolve().parent,
        files=[*items, *interactions, *edges],
        item_files=items,
        read_items=partial(read_table, items, config, notes),
        read_interactions=partial(read_table, interactions, config, notes),
        read_edges=partial(read_table, edges, config, notes) if edges else None,
        notes=notes,
        item_batches=batch_reader(items, config, notes),
        interaction_batches=batch_reader(interactions, config, notes),
    )


def _named(text: str) -> dict[str, list[Path]]:
    """Table → paths, of `items=a interactions=b`; paths with blanks are quoted, and may hold `*`."""
    parts = named_parts(text, NAMES, NAMES[:2], "'items=a.csv interactions=b.csv'")
    return {name: _matching(path) for name, path in parts.items()}


def _matching(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.exists() or not set(text) & set("*?["):
        return [path]
    found = [Path(one) for one in sorted(glob(str(path), recursive=True))]
    if not found:
        raise VitrineError(f"no file matches {text!r}; correct the pattern.")
    return found


def _beside(text: str, notes: Notes) -> dict[str, list[Path]]:
    """The items table that the path names, and the interactions beside it."""
    path = Path(text).expanduser()
    if not text or not path.is_file():
        raise VitrineError(
            f"catalog.path {text!r} is no file; give the file with the items, or "
            "'items=a.csv interactions=b.csv'."
        )
    for name in INTERACTIONS:
        found = [one for one in table_files(path.parent, name, Notes()) if one != path]
        if found:
            notes.add(
                found[0].name,
                f"is read as the interactions, by its name beside {path.name}",
                remedy="if that is wrong, set --catalog.path 'items=… interactions=…'",
            )
            return {"items": [path], "interactions": [found[0]]}
    raise VitrineError(
        f"{path.parent} holds no {', '.join(INTERACTIONS[:-1])} or {INTERACTIONS[-1]} file beside "
        f"{path.name}; write 'items={path.name} interactions=<file>'."
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path.resolve()]
    files = [one.resolve() for one in files_in(path)]
    if not files:
        raise VitrineError(f"{path} is an empty folder; it needs the parts of a table.")
    return files
