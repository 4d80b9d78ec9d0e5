"""Reads RecBole's atomic files: typed columns, and interactions that may be split already."""

from functools import partial
from pathlib import Path

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, unite_batches
from catalog.roles import INTERACTION_ROLES, ITEM_ROLES
from catalog.sources.base import RawTables
from catalog.sources.batches import distinct_batches, shape_batches, whole_table
from catalog.sources.finding import choose, defaults, files_in, missing, plain_name
from catalog.sources.folder import SPLIT_NAMES, existing_folder
from catalog.sources.recbole_columns import typed_reader

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
    read = _interactions(parts, rules, notes)
    return RawTables(
        name=name,
        folder=folder,
        files=[*parts.values(), *([items] if items else [])],
        item_files=[items] if items else list(parts.values()),
        read_items=partial(_items, items, read, rules, notes),
        read_interactions=whole_table(read),
        notes=notes,
        interaction_batches=read,
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


def _interactions(parts: Parts, config: CatalogConfig, notes: Notes) -> BatchReader:
    found = [one for one in ("", *SPLIT_NAMES) if one in parts]
    readers = [_part(part, parts[part], config, notes) for part in found]
    names = [path.name for path in parts.values()]
    read = readers[0] if len(readers) == 1 else unite_batches(readers, names, notes)
    return shape_batches(read, partial(_with_ids, names[0]), notes)


def _part(part: str, path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    def shape(table: pa.Table, notes: Notes) -> pa.Table:
        lists = [name for name in table.column_names if name.endswith("_list")]
        if lists:
            raise VitrineError(
                f"{path} holds {lists[0]}: each row repeats the history before it; give "
                "the .inter file with one interaction a row."
            )
        if part:
            table = table.append_column("split", pa.array([part] * len(table), pa.string()))
        return table

    return shape_batches(typed_reader(path, config, notes), shape, notes)


def _with_ids(where: str, table: pa.Table, notes: Notes) -> pa.Table:
    ids = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    table = _with_role(table, "user_id", INTERACTION_ROLES["user_id"], ids[:1], where, notes)
    return _with_role(table, "item_id", INTERACTION_ROLES["item_id"], ids[1:2], where, notes)


def _items(path: Path | None, read: BatchReader, config: CatalogConfig, notes: Notes) -> pa.Table:
    if path is None:
        name = next(iter(_known(next(read()), INTERACTION_ROLES["item_id"])))
        notes.add("items", "are the distinct ids of the interactions, as there is no .item file")
        return distinct_batches(read, name)
    table = whole_table(typed_reader(path, config, notes))()
    table = _with_role(
        table, "item_id", ITEM_ROLES["item_id"], table.column_names[:1], path.name, notes
    )
    if "class" in table.column_names and not _known(table, ITEM_ROLES["category"]):
        table = table.append_column("category", table["class"])
    return table


def _known(table: pa.Table | pa.RecordBatch, names: object) -> list[str]:
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
