"""Reads a Hugging Face dataset: a name on the hub, or a folder written by `save_to_disk`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.sources.base import RawTables

PARTS = ("items", "interactions")
ROWS_PER_BATCH = 4096
"""Few enough for embedded pictures."""


def huggingface_tables(config: CatalogConfig) -> RawTables:
    """A Hugging Face dataset, by its name on the hub or its `save_to_disk` folder, with the splits `items`
    and `interactions`; on the hub they may be configurations instead. The subset names the
    configuration, or the folder in the saved one, that holds both.

    Images must be given as paths relative to the dataset's folder: images embedded in the tables
    are not read (write them to files first). A hub dataset therefore has text only.
    """
    if not config.path:
        raise VitrineError(
            "catalog.path is empty; give a dataset's name or its save_to_disk folder."
        )
    folder = Path(config.path).expanduser()
    local = folder.is_dir()
    parts = {part: _open_part(config, folder if local else None, part) for part in PARTS}
    files_of = {
        part: [Path(file["filename"]) for file in opened.cache_files]
        for part, opened in parts.items()
    }
    files = [path for paths in files_of.values() for path in paths]
    notes = Notes()
    return RawTables(
        name=folder.name,
        folder=folder.resolve() if local else files[0].parent,
        files=files,
        item_files=files_of["items"],
        read_items=lambda: _table_of(parts["items"], "items", notes),
        read_interactions=lambda: _table_of(parts["interactions"], "interactions", notes),
        notes=notes,
        item_batches=lambda: _batches_of(parts["items"]),
        interaction_batches=lambda: _batches_of(parts["interactions"]),
    )


def _batches_of(part: datasets.Dataset) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(part), ROWS_PER_BATCH):
        table: Any = part.with_format("arrow")[start : start + ROWS_PER_BATCH]
        yield from table.to_batches()


def _open_part(config: CatalogConfig, folder: Path | None, part: str) -> datasets.Dataset:
    name = config.path
    try:
        if folder is not None:
            return datasets.Dataset.load_from_disk(str(folder / config.subset / part))
        try:
            opened = datasets.load_dataset(name, config.subset or None, split=part)
        except ValueError:  # no such split: perhaps a configuration of that name
            if config.subset:
                raise
            opened = _only_split(datasets.load_dataset(name, part), part)
    except Exception as error:  # the hub's client raises many kinds: offline, private, misspelt
        reason = " ".join(str(error).split())
        raise VitrineError(
            f"the dataset {name} cannot be opened: {reason}; it needs the parts items and "
            "interactions."
        ) from error
    assert isinstance(opened, datasets.Dataset)
    return opened


def _only_split(opened: object, part: str) -> datasets.Dataset:
    """The table of a configuration: its split of that name, train, or the only one."""
    assert isinstance(opened, datasets.DatasetDict)
    for name in (part, "train"):
        if name in opened:
            return opened[name]
    if len(opened) > 1:
        raise ValueError(f"the configuration {part} has the splits {', '.join(map(str, opened))}")
    return next(iter(opened.values()))


def _table_of(part: datasets.Dataset, where: str, notes: Notes) -> pa.Table:
    embedded = [name for name, kind in part.features.items() if isinstance(kind, datasets.Image)]
    if embedded:
        notes.add(
            where,
            f"{len(embedded)} columns hold embedded images and are left out",
            "dropped",
            examples=embedded,
            remedy="write the images to files, and give their paths",
        )
    return part.with_format("arrow").remove_columns(embedded)[:]
