"""Reads MMRec's preprocessed datasets: numbered interactions with a split, and feature files."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.base import RawTables
from catalog.sources.feature_files import note_features, numpy_features
from catalog.sources.finding import choose, defaults, files_in, find, missing, plain_name
from catalog.sources.folder import existing_folder
from catalog.sources.shaping import distinct, need_columns, renamed, with_column

LABELS = ("train", "validation", "test")
"""Subsets by x_label 0, 1, 2."""
FEATURES = ("image_feat.npy", "text_feat.npy")


def mmrec_tables(config: CatalogConfig) -> RawTables:
    """MMRec's `<name>.inter` (tab-separated `userID`, `itemID`, `rating`, `timestamp`, `x_label`), whose
    labels 0, 1 and 2 become the column `split`, and if there `i_id_mapping.csv` (the ids before numbering).
    Items are those of the mapping, or the distinct ids; there are no texts and pictures.
    `image_feat.npy` and `text_feat.npy`, one row an `itemID`, are written by an import.
    """
    folder = existing_folder(config.path)
    found = {
        plain_name(path)[: -len(".inter")]: path
        for path in files_in(folder, depth=1)
        if plain_name(path).lower().endswith(".inter")
    }
    if not found:
        raise missing(folder, "file <name>.inter", "mmrec")
    name, path = choose(found, config, folder, "dataset")
    notes = Notes()
    mapping = find(path.parent, "i_id_mapping.csv")
    features = [
        numpy_features(vectors)
        for feature in FEATURES
        if (vectors := find(path.parent, feature)) is not None
    ]
    note_features(features, notes)
    rules = defaults(config, delimiter="\t")
    read = cache(partial(_interactions, path, rules, notes))
    return RawTables(
        name=name,
        folder=path.parent,
        files=[path, *([mapping] if mapping else [])],
        item_files=[mapping or path],
        read_items=partial(_items, mapping, read, rules, notes),
        read_interactions=read,
        roles={
            "user_id": "userID",
            "item_id": "itemID",
            "split": "split",
        },
        notes=notes,
        features=features,
    )


def _interactions(path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    table = read_table(path, config, notes)
    need_columns(table, ["userID", "itemID", "x_label"], path, "mmrec")
    labels = pc.utf8_trim_whitespace(table["x_label"])
    rows = pc.index_in(labels, value_set=pa.array([str(n) for n in range(len(LABELS))]))
    if rows.null_count:
        other = labels.filter(pc.is_null(rows))
        raise VitrineError(
            f"{path} has {len(other)} rows with another x_label than 0, 1 and 2 "
            f"({other[0].as_py()!r}); remove them."
        )
    split = pa.chunked_array([pa.array(LABELS)]).take(rows)
    return with_column(table, "split", split)


def _items(
    path: Path | None, interactions: Callable[[], pa.Table], config: CatalogConfig, notes: Notes
) -> pa.Table:
    if path is None:
        notes.add("items", "are the distinct ids of the interactions, as there is no i_id_mapping")
        return distinct(interactions()["itemID"], "itemID")
    table = read_table(path, config, notes)
    need_columns(table, ["itemID"], path, "mmrec")
    others = [name for name in table.column_names if name != "itemID"]
    return renamed(table, {others[0]: "original_id"}) if others else table
