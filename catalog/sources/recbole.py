"""Reads RecBole's atomic files: typed columns, and interactions that may be split already."""

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
from catalog.reading import read_table, unite_tables
from catalog.roles import INTERACTION_ROLES, ITEM_ROLES
from catalog.sources.base import RawTables
from catalog.sources.finding import choose, defaults, files_in, missing, plain_name
from catalog.sources.folder import SPLIT_NAMES, existing_folder
from catalog.sources.shaping import distinct, split_text

TYPES = ("token", "token_seq", "float", "float_seq")
PROSE = {name.replace("_", "") for role in ("title", "text") for name in ITEM_ROLES[role]}
"""Names of columns whose words, separated by blanks, are one text."""
COMMAS = 0.5
"""Share of a sequence's values with ", " from which on that separates its elements."""
Parts = dict[str, Path]


def recbole_tables(config: CatalogConfig) -> RawTables:
    """RecBole's `<name>.inter` (or `<name>.train.inter`, `.valid.inter`, `.test.inter`) and, if there,
    `<name>.item`, tab-separated, with types in the header as in `item_id:token`. A `token_seq` becomes
    a list, unless it is a title or a description. Parts of a split become a column `split`. Without
    `.item` the items are the distinct ids. `<name>.user` and other files are not read.
    """
    folder = existing_folder(config.path)
    found = [path for path in files_in(folder) if plain_name(path).lower().endswith(".inter")]
    if not found:
        raise missing(folder, "file <name>.inter", "recbole")
    name, parts = choose(_datasets(found), config, folder, "dataset")
    by_name = {plain_name(path).lower(): path for path in files_in(folder)}
    items = by_name.get(f"{name}.item".lower())
    notes = Notes()
    users = by_name.get(f"{name}.user".lower())
    if users:
        notes.add(
            users.name, "is not read, as a catalog holds nothing of users but their histories"
        )
    rules = defaults(config, delimiter="\t", header="yes")
    read_interactions = cache(partial(_interactions, parts, rules, notes))
    return RawTables(
        name=name,
        folder=folder,
        files=[*parts.values(), *([items] if items else [])],
        item_files=[items] if items else list(parts.values()),
        read_items=partial(_items, items, read_interactions, rules, notes),
        read_interactions=read_interactions,
        notes=notes,
    )


def _datasets(paths: list[Path]) -> dict[str, Parts]:
    """Name of a dataset → its files by subset; {"": file} where it is not split."""
    subset_of = {name: part for part, names in SPLIT_NAMES.items() for name in names}
    found: dict[str, Parts] = {}
    for path in paths:
        stem = plain_name(path)[: -len(".inter")]
        name, _, last = stem.rpartition(".")
        part = subset_of.get(last.lower(), "") if name else ""
        found.setdefault(name if part else stem, {})[part] = path
    for name, parts in found.items():
        if "" in parts and len(parts) > 1:
            raise VitrineError(
                f"{name} lies there both whole ({parts[''].name}) and split; keep one of them."
            )
        if "" not in parts and not {"train", "test"} <= set(parts):
            raise VitrineError(
                f"{name} lies there as {', '.join(one.name for one in parts.values())}; a given split "
                "needs the parts train and test."
            )
    return found


def _interactions(parts: Parts, config: CatalogConfig, notes: Notes) -> pa.Table:
    tables = []
    for part in [one for one in ("", *SPLIT_NAMES) if one in parts]:
        table = _read(parts[part], config, notes)
        lists = [name for name in table.column_names if name.endswith("_list")]
        if lists:
            raise VitrineError(
                f"{parts[part]} holds {lists[0]}: each row repeats the history before it; give "
                "the .inter file with one interaction a row."
            )
        if part:
            table = table.append_column("split", pa.array([part] * len(table), pa.string()))
        tables.append(table)
    names = [path.name for path in parts.values()]
    table = tables[0] if len(tables) == 1 else unite_tables(tables, names, notes)
    ids = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    table = _with_role(table, "user_id", INTERACTION_ROLES["user_id"], ids[:1], names[0], notes)
    return _with_role(table, "item_id", INTERACTION_ROLES["item_id"], ids[1:2], names[0], notes)


def _items(
    path: Path | None, interactions: Callable[[], pa.Table], config: CatalogConfig, notes: Notes
) -> pa.Table:
    if path is None:
        table = interactions()
        name = next(one for one in _known(table, INTERACTION_ROLES["item_id"]))
        notes.add("items", "are the distinct ids of the interactions, as there is no .item file")
        return distinct(table[name], name)
    table = _read(path, config, notes)
    table = _with_role(
        table, "item_id", ITEM_ROLES["item_id"], table.column_names[:1], path.name, notes
    )
    if "class" in table.column_names and not _known(table, ITEM_ROLES["category"]):
        table = table.append_column("category", table["class"])
    return table


def _known(table: pa.Table, names: object) -> list[str]:
    plain = [name.replace("_", "") for name in names]  # pyright: ignore[reportGeneralTypeIssues]
    return [one for one in table.column_names if one.lower().replace("_", "") in plain]


def _with_role(
    table: pa.Table, role: str, names: object, candidates: list[str], where: str, notes: Notes
) -> pa.Table:
    """The table with a column named as the role, where none has a usual name for it."""
    if _known(table, names) or not candidates:
        return table
    notes.add(
        where,
        f"{candidates[0]} is read as {role}, by its place",
        remedy=f"if that is wrong, set --catalog.roles '{{{role}: …}}'",
    )
    return table.append_column(role, table[candidates[0]])


def _read(path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    """A file with its columns in the types that its header names."""
    table = read_table(path, config, notes)
    columns, names, untyped = [], [], []
    for given, column in zip(table.column_names, table.columns, strict=True):
        name, _, kind = given.rpartition(":")
        if kind not in TYPES or not name:
            untyped.append(given)
            name, kind = given, "token"
        names.append(name)
        columns.append(_typed(column, name, kind, path.name, notes))
    if len(untyped) == len(names):
        raise VitrineError(
            f"{path} names no types: RecBole's headers read user_id:token, tab-separated, and this one "
            f"begins with {untyped[0][:60]!r}."
        )
    if untyped:
        notes.add(path.name, "columns without a type are read as token", examples=untyped)
    return pa.table(columns, names=names)


def _typed(
    column: pa.ChunkedArray, name: str, kind: str, where: str, notes: Notes
) -> pa.ChunkedArray:
    if kind == "token" or (kind == "token_seq" and name.replace("_", "").lower() in PROSE):
        return column
    if kind == "token_seq":
        commas = pc.mean(pc.match_substring(column, ", ").cast(pa.int8())).as_py() or 0.0
        if commas >= COMMAS:
            notes.add(f"{where}: {name}", "its elements are separated by commas, not by blanks")
        return split_text(column, "," if commas >= COMMAS else " ")
    try:
        if kind == "float":
            return column.cast(pa.float64())
        return split_text(column, " ").cast(pa.list_(pa.float64()))
    except pa.ArrowInvalid:
        notes.add(f"{where}: {name}", "is typed float and holds other values; it is read as text")
        return column
