"""Assigns columns to roles: by their names, unless the source, catalog.yaml or the config name them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from catalog.columns import first_text
from catalog.errors import VitrineError, did_you_mean
from catalog.notes import Notes
from catalog.values.dates import is_clock
from catalog.values.joins import choose_id_columns
from catalog.values.names import INTERACTION_ROLES, ITEM_ROLES, ORDER_NAMES, plain_name
from catalog.values.paths import ADDRESS

__all__ = ["INTERACTION_ROLES", "ITEM_ROLES", "ORDER_NAMES", "Roles", "resolve_roles"]

NEEDED = {"item_id", "user_id"}

Roles = dict[str, Any]
"""Role → column; `text` → list of columns. A role without column is absent."""


def resolve_roles(
    item_columns: Sequence[str],
    interaction_columns: Sequence[str],
    overrides: Iterable[Roles],
    tables: tuple[pa.Table, pa.Table] | None = None,
    notes: Notes | None = None,
) -> tuple[Roles, Roles]:
    """The items' roles and the interactions' roles.

    Each dict of `overrides` takes precedence over those before it and over the guess; a role set to None
    has no column. With `tables` (items, interactions; each name once) the guess is of the id columns
    that join, the time column that holds dates, and columns of a usable type. Raises VitrineError for
    an unknown role, an unknown column, and a missing id column.
    """
    notes = Notes() if notes is None else notes
    chosen: Roles = {}
    for roles in overrides:
        for role, column in roles.items():
            _check_role(role, column)
            chosen[role] = column
    _check_columns(chosen, item_columns, interaction_columns)
    known = dict(_TABLES)
    if tables is not None:
        known = _seen(tables, chosen, notes)
    items = _assign(known["items"], item_columns, chosen, "items")
    interactions = _assign(known["interactions"], interaction_columns, chosen, "interactions")
    return items, interactions


Known = dict[str, dict[str, Sequence[str]]]


def _seen(tables: tuple[pa.Table, pa.Table], chosen: Roles, notes: Notes) -> Known:
    """The usual names of each role, those first that the tables' values speak for."""
    known: Known = {table: dict(roles) for table, roles in _TABLES.items()}
    _prefer_joining_ids(known, tables, chosen, notes)
    for table, part in zip(tables, _TABLES, strict=True):
        for role in known[part].keys() - chosen.keys() - NEEDED:
            found = _guess_all(known[part][role], table.column_names)
            usable = [name for name in found if not _has_no_text(table[name].type)]
            if role == "image":
                usable.sort(key=lambda name: _holds_addresses(table[name], name))
            known[part][role] = usable or found
    if "time" not in chosen:
        found = known["interactions"]["time"]
        dated = [name for name in found if not is_clock(tables[1][name])]
        if found and dated and found[0] != dated[0]:
            known["interactions"]["time"] = [dated[0]]
            notes.add(
                f"interactions: {dated[0]}",
                f"is taken for the time, as {found[0]} holds times of day without a date",
                remedy=f"join {dated[0]} and {found[0]} in one column for the order within a day",
            )
    return known


def _has_no_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_no_text(kind.value_type)
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_addresses(column: pa.ChunkedArray, name: str) -> bool:
    """Whether the first value of a column of pictures is a web address."""
    given = column.slice(0, 1000).drop_null().slice(0, 1)
    first = first_text(given, name).to_pylist() if len(given) else []
    return bool(first and first[0] and re.search(ADDRESS, first[0].lstrip("['\"")))


def _prefer_joining_ids(
    known: Known, tables: tuple[pa.Table, pa.Table], chosen: Roles, notes: Notes
) -> None:
    """Puts the id columns first of which most ids of the interactions are found among the items."""
    names: list[list[str]] = []
    free: list[list[str]] = []
    given: str | None = chosen.get("item_id")
    for table, part in zip(tables, _TABLES, strict=True):
        columns = list(dict.fromkeys(table.column_names))
        if given is not None and given in columns:
            names.append([given])
            free.append([])
            continue
        taken = {name for role in chosen.values() for name in _names_of(role)}
        columns = [name for name in columns if name not in taken]
        names.append(_guess_all(known[part]["item_id"], columns))
        others = [
            _guess_all(of, columns)[:1] for role, of in known[part].items() if role != "item_id"
        ]
        used = {name for guessed in others for name in guessed}
        free.append([name for name in columns if name not in used and name not in names[-1]])
    if not names[0] and not names[1]:
        return
    item, interaction, share, first = choose_id_columns(
        tables[0],
        tables[1],
        (names[0], names[1]),
        (free[0], free[1]),
    )
    for part, column, before in zip(_TABLES, (item, interaction), names, strict=True):
        if not column or column == given:
            continue
        known[part]["item_id"] = [column]
        if not before or before[0] != column:
            instead = f" and {before[0]} for {first:.0%}" if before else ""
            notes.add(
                f"{part}: {column}",
                f"is taken for the item_id, as it joins the two tables for {share:.0%} of the "
                f"interactions' ids{instead}",
                remedy="set roles: {item_id: <column>} if that is wrong",
            )


def _names_of(column: Any) -> list[str]:
    return list(column) if isinstance(column, list | tuple) else [column]


def _check_role(role: str, column: object) -> None:
    known = [*ITEM_ROLES, *(role for role in INTERACTION_ROLES if role != "item_id")]
    if role not in known:
        raise VitrineError(f"roles names an unknown role {role!r}.{did_you_mean(str(role), known)}")
    if role == "text" and isinstance(column, list | tuple):
        if all(isinstance(name, str) for name in column):
            return
    elif column is None or isinstance(column, str):
        return
    expected = "a column or a list of columns" if role == "text" else "one column's name"
    raise VitrineError(f"roles.{role} is {column!r}; give {expected}, or null for none.")


def _check_columns(chosen: Roles, items: Sequence[str], interactions: Sequence[str]) -> None:
    for role, column in chosen.items():
        tables = [items] * (role in ITEM_ROLES) + [interactions] * (role in INTERACTION_ROLES)
        columns = [name for table in tables for name in table]
        names = column if isinstance(column, list | tuple) else [column]
        for name in names:
            if name is not None and name not in columns:
                where = " or ".join(table for table, roles in _TABLES.items() if role in roles)
                raise VitrineError(
                    f"roles.{role} names the column {name!r}, which is not among those of {where}."
                    f"{did_you_mean(name, columns)}"
                )


_TABLES = {"items": ITEM_ROLES, "interactions": INTERACTION_ROLES}


def _assign(
    known: dict[str, Sequence[str]], columns: Sequence[str], chosen: Roles, table: str
) -> Roles:
    assigned: Roles = {}
    for role, names in known.items():
        if role in chosen and not _is_elsewhere(role, chosen[role], columns):
            column = chosen[role]
        else:
            taken = {name for name in chosen.values() if isinstance(name, str)}
            column = _guess(names, [name for name in columns if name not in taken])
        if role == "text" and isinstance(column, str):
            column = [column]
        if column:
            assigned[role] = list(column) if role == "text" else column
        elif role in NEEDED:
            raise VitrineError(
                f"{table} has no column that looks like {role} among {', '.join(columns)}; "
                f"name it with roles: {{{role}: <column>}}."
            )
    # Without a description the category is the only text beside the title.
    if table == "items" and "text" not in assigned and "text" not in chosen:
        assigned["text"] = [assigned["category"]] if "category" in assigned else []
    return assigned


def _is_elsewhere(role: str, column: Any, columns: Sequence[str]) -> bool:
    """Whether an overridden id column belongs to the other table, which may name the item's id otherwise."""
    return role == "item_id" and column not in columns


def _guess(names: Sequence[str], columns: Sequence[str]) -> str | None:
    return next(iter(_guess_all(names, columns)), None)


def _guess_all(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that have one of the names, in the order of the names."""
    plain = {plain_name(column): column for column in reversed(columns)}
    found = (name if name in columns else plain.get(plain_name(name)) for name in names)
    return [column for column in dict.fromkeys(found) if column is not None]
