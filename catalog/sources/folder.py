"""Reads a domain folder: items.*, interactions.* and edges.*, in the formats of catalog.reading."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader, read_table, unite_batches
from catalog.reading.files import table_files
from catalog.sources.base import RawTables
from catalog.sources.batches import shape_batches, whole_table
from catalog.yaml_files import read_yaml

SETTINGS_FILE = "catalog.yaml"
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""Subset → what it may be called in interactions.<name>.<suffix>."""


def folder_tables(config: CatalogConfig) -> RawTables:
    """A folder with `items.<suffix>`, `interactions.<suffix>` and, optionally, `edges.<suffix>` and
    `catalog.yaml`. Each table may lie in several parts (see catalog/reading/files.py). Interactions
    that were split before may lie in `interactions.train.<suffix>`, `interactions.test.<suffix>`
    and, optionally, `interactions.validation.<suffix>`."""
    folder = existing_folder(config.path)
    notes = Notes()
    items = find_table(folder, "items", notes)
    interactions = _find_interactions(folder, notes)
    settings = folder / SETTINGS_FILE
    edges = table_files(folder, "edges", notes)
    read = _interaction_reader(interactions, config, notes)
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[*items, *(path for part in interactions.values() for path in part), *edges],
        item_files=items,
        read_items=partial(read_table, items, config, notes),
        read_interactions=whole_table(read),
        read_edges=partial(read_table, edges, config, notes) if edges else None,
        roles=read_settings(settings) if settings.exists() else {},
        notes=notes,
        item_batches=batch_reader(items, config, notes),
        interaction_batches=read,
    )


def _find_interactions(folder: Path, notes: Notes) -> dict[str, list[Path]]:
    """The files of interactions: {"": files}, or subset → files for a given split."""
    split: dict[str, list[Path]] = {}
    for part, names in SPLIT_NAMES.items():
        for name in names:
            found = table_files(folder, f"interactions.{name}", notes)
            if found and part in split:
                raise VitrineError(
                    f"{folder} holds {split[part][0].name} and {found[0].name}; keep one of them."
                )
            if found:
                split[part] = found
            if found and name != part:
                notes.add(found[0].name, f"is read as the {part} subset, by its name")
    whole = table_files(folder, "interactions", notes)
    if split and whole:
        raise VitrineError(
            f"{folder} holds interactions both whole and split ({next(iter(split.values()))[0].name}); "
            "keep one of them."
        )
    if not split:
        return {"": find_table(folder, "interactions", notes)}
    for part in ("train", "test"):
        if part not in split:
            raise VitrineError(
                f"{folder} holds no interactions.{part} file beside the other parts."
            )
    return split


def _interaction_reader(
    files: dict[str, list[Path]], config: CatalogConfig, notes: Notes
) -> BatchReader:
    """The rows of all files; the parts of a given split are named in a column `split`."""
    if list(files) == [""]:
        return batch_reader(files[""], config, notes)
    readers = [_part_reader(part, paths, config, notes) for part, paths in files.items()]
    return unite_batches(readers, [paths[0].name for paths in files.values()], notes)


def _part_reader(part: str, paths: list[Path], config: CatalogConfig, notes: Notes) -> BatchReader:
    def shape(table: pa.Table, notes: Notes) -> pa.Table:
        if "split" in table.column_names:
            raise VitrineError(
                f"{paths[0]} is one part of a split and has a column split; remove it."
            )
        return table.append_column("split", pa.array([part] * len(table), pa.string()))

    return shape_batches(batch_reader(paths, config, notes), shape, notes)


def existing_folder(path: str) -> Path:
    """The absolute path of a folder; VitrineError if it is empty, missing or a file."""
    if not path:
        raise VitrineError(
            "catalog.path is empty; name the folder that holds items and interactions."
        )
    folder = Path(path).expanduser()
    if not folder.exists():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else []
        hint = did_you_mean(folder.name, (other.name for other in siblings if other.is_dir()))
        raise VitrineError(f"the catalog folder {path} does not exist.{hint}")
    if not folder.is_dir():
        raise VitrineError(
            f"{path} is a file; a catalog is the folder that holds it: {folder.parent}"
        )
    return folder.resolve()


def find_table(folder: Path, stem: str, notes: Notes) -> list[Path]:
    """The files of a table; VitrineError if there are none."""
    found = table_files(folder, stem, notes)
    if not found:
        raise VitrineError(
            f"{folder} holds no {stem} file; expected {stem}.parquet, {stem}.jsonl, {stem}.csv "
            f"or {stem}.tsv."
        )
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """The roles in a folder's catalog.yaml; `imported`, what an import wrote of itself, is not read."""
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict):
        raise VitrineError(f"{path} must hold `roles:` and below it role: column.")
    for key in settings:
        if key not in ("roles", "imported"):
            raise VitrineError(
                f"{path} has an unknown key {key!r}.{did_you_mean(str(key), ['roles'])}"
            )
    roles = settings.get("roles") or {}
    if not isinstance(roles, dict):
        raise VitrineError(
            f"{path}: roles must map a role to a column, such as `title: prod_name`."
        )
    return roles
