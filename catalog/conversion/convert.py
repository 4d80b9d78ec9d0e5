"""Converts raw tables to a catalog's format in memory: items by role, histories in arrays."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.config import CatalogConfig
from catalog.conversion.interactions import Histories, build_histories, read_edges, read_rows
from catalog.conversion.items import ConvertedItems, convert_items, plain_columns
from catalog.errors import VitrineError
from catalog.notes import Note
from catalog.roles import Roles, resolve_roles
from catalog.sources.base import RawTables
from catalog.values.ids import align_ids, drop_without_id, read_ids


@dataclass(frozen=True)
class Converted:
    """A catalog's content, aligned by id."""

    items: ConvertedItems | None
    """None: as they were converted before."""
    histories: Histories
    edges: NDArray[np.int32] | None
    """(e, 2): rows of linked items."""
    roles: Roles
    """Role → column, of the interactions."""
    notes: list[Note]
    """How the interactions were read."""


def convert(
    raw: RawTables, config: CatalogConfig, known: ConvertedItems | None = None
) -> Converted:
    """Reads, checks and sorts a catalog's tables; VitrineError for what the user must correct.

    `known`: the same items, converted before. Their table is not read again, unless the interactions now
    speak for other columns of it, or for another form of its ids.
    """
    notes, first = raw.notes, len(raw.notes.listed)
    raw_items = raw.read_items() if known is None else known.columns
    of_items = notes.listed[first:]
    interactions = raw.read_interactions()
    for name, table in (("items", raw_items), ("interactions", interactions)):
        if table.num_rows == 0:
            raise VitrineError(f"the catalog {raw.name} has no {name}; the table holds no rows.")
    raw_items, interactions = map(_first_of_each_name, (raw_items, interactions))
    item_roles, roles = resolve_roles(
        raw_items.column_names,
        interactions.column_names,
        [raw.roles, config.roles or {}],
        (raw_items, interactions),
        notes,
    )
    rows = read_rows(interactions, roles, raw.name, config, notes)
    if known is None:
        known_ids = read_ids(
            raw_items[item_roles["item_id"]], item_roles["item_id"], "items", notes
        )
        raw_items, known_ids = drop_without_id(raw_items, known_ids, "item_id", "items", notes)
    else:
        known_ids = known.items["item_id"]
    ids, item_ids = align_ids(rows.ids, known_ids, notes)
    if known is not None and (known.assigned != item_roles or item_ids is not known_ids):
        del notes.listed[first:]
        return convert(raw, config)
    items = None
    if known is None:
        items = _convert_items(raw_items, item_ids, item_roles, raw, config)
        items.notes[:0] = of_items
        items = replace(items, is_aligned=item_ids is not known_ids)
    return Converted(
        items,
        build_histories(replace(rows, ids=ids), roles, item_ids, raw.name, config, notes),
        None
        if raw.read_edges is None
        else read_edges(raw.read_edges(), item_ids, raw.name, config, notes),
        roles,
        [note for note in notes.listed if items is None or note not in items.notes],
    )


def _convert_items(
    table: pa.Table, ids: pa.ChunkedArray, assigned: Roles, raw: RawTables, config: CatalogConfig
) -> ConvertedItems:
    notes, first = raw.notes, len(raw.notes.listed)
    roles = deepcopy(assigned)
    columns = plain_columns(table, roles, notes)
    items = convert_items(columns, ids, roles, raw.folder, config, notes)
    return ConvertedItems(items, columns, roles, assigned, notes.listed[first:])


def _first_of_each_name(table: pa.Table) -> pa.Table:
    names = table.column_names
    return table.select([place for place, name in enumerate(names) if names.index(name) == place])
