"""Reads Yambda, Yandex's music dataset: listens, likes and dislikes in parquet."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader, read_table
from catalog.sources.base import RawTables
from catalog.sources.batches import distinct_batches, shape_batches, whole_table
from catalog.sources.feature_files import note_features, parquet_features
from catalog.sources.finding import choose, files_in, find, missing
from catalog.sources.folder import existing_folder
from catalog.sources.shaping import grouped, with_column

EVENTS = ("listens", "likes", "dislikes", "unlikes", "undislikes")
PLAYED = 50
"""Percent of a track from which on a listen is positive, as in the paper."""


def yambda_tables(config: CatalogConfig) -> RawTables:
    """Yambda's `flat/<size>/<event>.parquet` (`uid`, `item_id`, `timestamp` in steps of five seconds;
    listens also `played_ratio_pct`), where the subset names the event, such as listens, or size and event,
    such as 50m/listens. Listens count from 50 percent played. Items are the distinct ids, with
    `album_item_mapping.parquet` and `artist_item_mapping.parquet` if there; there are no texts and
    pictures. The column `embed` of `embeddings.parquet` is written by an import.
    """
    folder = existing_folder(config.path)
    parts: dict[str, Path] = {}
    for path in files_in(folder, depth=2):
        stem = path.stem.lower()
        if path.suffix.lower() == ".parquet" and stem in EVENTS and "sequential" not in path.parts:
            parts["/".join([*path.relative_to(folder).parts[:-1], stem][-2:])] = path
    if not parts:
        raise missing(folder, "flat/<size>/listens.parquet", "yambda")
    short = {name.rpartition("/")[2]: path for name, path in parts.items()}
    are_named = config.subset in parts or len(short) < len(parts)
    name, path = choose(parts if are_named else short, config, folder, "kind of event")
    mappings = {
        kind: found
        for kind in ("artist", "album")
        for place in (folder, folder.parent, *folder.parents[1:2])
        if (found := find(place, f"{kind}_item_mapping.parquet"))
    }
    notes = Notes()
    features = [
        parquet_features(found, "item_id", "embed")
        for place in (folder, folder.parent, *folder.parents[1:2])
        if (found := find(place, "embeddings.parquet"))
    ][:1]
    note_features(features, notes)
    shape = partial(_played, path)
    read = shape_batches(batch_reader(path, config, notes), shape, notes)
    return RawTables(
        name=name.replace("/", "-"),
        folder=path.parent,
        files=[path, *mappings.values()],
        item_files=[path, *mappings.values()],
        read_items=lambda: _items(read, mappings, config, notes),
        read_interactions=whole_table(read),
        roles={"user_id": "uid", "time": "timestamp", "title": None},
        notes=notes,
        features=features,
        interaction_batches=read,
    )


def _played(path: Path, table: pa.Table, notes: Notes) -> pa.Table:
    """The events without listens that were broken off."""
    if "played_ratio_pct" not in table.column_names:
        return table
    kept = pc.fill_null(pc.greater_equal(table["played_ratio_pct"], PLAYED), False)
    if lost := len(table) - (pc.sum(kept).as_py() or 0):
        notes.add(
            path.name,
            f"{lost} listens of less than {PLAYED} percent of the track are no interactions",
            "dropped",
            count=lost,
        )
    return table.filter(kept)


def _items(
    events: BatchReader, mappings: dict[str, Path], config: CatalogConfig, notes: Notes
) -> pa.Table:
    table = distinct_batches(events, "item_id")
    notes.add("items", "are the distinct ids of the interactions, as there is no table of tracks")
    for kind, path in mappings.items():
        pairs = read_table(path, config, notes)
        values = pairs[f"{kind}_id"].cast(pa.string())
        table = with_column(
            table, f"{kind}_id", grouped(pairs["item_id"], values, table["item_id"])
        )
    return table
