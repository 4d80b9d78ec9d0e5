"""Reads a domain folder: items.*, interactions.* and edges.* as parquet, jsonl, csv or tsv."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, json, parquet

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.sources.base import RawTables
from catalog.yaml_files import read_yaml

SUFFIXES = ("parquet", "jsonl", "csv", "tsv")
SETTINGS_FILE = "catalog.yaml"
BLOCK = 1 << 24
"""Bytes per block; the longest row must fit. Types of JSON columns are inferred from the first block."""


def folder_tables(config: CatalogConfig) -> RawTables:
    """A folder with `items.<suffix>`, `interactions.<suffix>` and, optionally, `edges.<suffix>` and
    `catalog.yaml`. Interactions that were split before may lie in `interactions.train.<suffix>`,
    `interactions.test.<suffix>` and, optionally, `interactions.validation.<suffix>`."""
    folder = existing_folder(config.path)
    items = find_table(folder, "items")
    interactions = _find_interactions(folder)
    settings = folder / SETTINGS_FILE
    rules = [settings] if settings.exists() else []
    has_edges = any((folder / f"edges.{suffix}").is_file() for suffix in SUFFIXES)
    edges = [find_table(folder, "edges")] if has_edges else []
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[items, *interactions.values(), *edges, *rules],
        item_files=[items, *rules],
        read_items=partial(read_table, items),
        read_interactions=partial(_read_interactions, interactions),
        read_edges=partial(read_table, edges[0]) if edges else None,
        roles=read_settings(settings) if rules else {},
    )


def _find_interactions(folder: Path) -> dict[str, Path]:
    """The files of interactions: {"": file}, or part → file for a given split."""
    split = {
        part: find_table(folder, f"interactions.{part}")
        for part in ("train", "validation", "test")
        if any((folder / f"interactions.{part}.{suffix}").is_file() for suffix in SUFFIXES)
    }
    whole = any((folder / f"interactions.{suffix}").is_file() for suffix in SUFFIXES)
    if split and whole:
        raise VitrineError(
            f"{folder} holds interactions both whole and split ({next(iter(split.values())).name}); "
            "keep one of them."
        )
    if not split:
        return {"": find_table(folder, "interactions")}
    for part in ("train", "test"):
        if part not in split:
            raise VitrineError(
                f"{folder} holds no interactions.{part} file beside the other parts."
            )
    return split


def _read_interactions(files: dict[str, Path]) -> pa.Table:
    """One table of all files; the parts of a given split are named in a column `split`."""
    tables = []
    for part, path in files.items():
        table = read_table(path)
        if part and "split" in table.column_names:
            raise VitrineError(f"{path} is one part of a split and has a column split; remove it.")
        if part:
            table = table.append_column("split", pa.array([part] * len(table), pa.string()))
        tables.append(table)
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        names = ", ".join(path.name for path in files.values())
        reason = " ".join(str(error).split())
        raise VitrineError(f"{names} do not have the same columns: {reason}") from error


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


def find_table(folder: Path, stem: str) -> Path:
    """Path of the only file `<stem>.parquet|jsonl|csv|tsv` in the folder."""
    found = [path for suffix in SUFFIXES if (path := folder / f"{stem}.{suffix}").is_file()]
    if not found:
        raise VitrineError(
            f"{folder} holds no {stem} file; expected {stem}.parquet, {stem}.jsonl, {stem}.csv "
            f"or {stem}.tsv."
        )
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise VitrineError(f"{folder} holds {names}; keep one of them.")
    return found[0]


def read_table(path: Path) -> pa.Table:
    """Reads a table in any of the four formats; csv and tsv columns as text, to preserve leading zeros."""
    if path.stat().st_size == 0:
        raise VitrineError(f"{path} is empty; it needs a header and at least one row.")
    try:
        match path.suffix:
            case ".parquet":
                return parquet.read_table(path)
            case ".jsonl":
                return _read_jsonl(path)
            case suffix:
                return read_delimited(path, "\t" if suffix == ".tsv" else ",")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise VitrineError(f"{path} cannot be read: {reason}") from error


LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"  # an even number of backslashes: the next one begins an escape
    rb"(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair, to be kept
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def _read_jsonl(path: Path) -> pa.Table:
    """Reads a jsonl file; a lone surrogate, which is invalid in text, becomes U+FFFD."""
    options = json.ReadOptions(block_size=BLOCK)
    try:
        return json.read_json(path, read_options=options)
    except pa.ArrowInvalid as error:
        if "surrogate" not in str(error):
            raise
    mended = LONE_SURROGATE.sub(
        lambda found: found[1] + (found[2] or rb"\ufffd"), path.read_bytes()
    )
    return json.read_json(pa.BufferReader(mended), read_options=options)


def read_delimited(
    path: Path,
    delimiter: str,
    names: list[str] | None = None,
    quoted: bool = True,
    encoding: str = "utf8",
) -> pa.Table:
    """Reads a delimited file with every column as text; `names` if the file has no header row."""
    parse = csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    read = csv.ReadOptions(column_names=names, encoding=encoding, block_size=BLOCK)
    if names is None:
        with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
            names = reader.schema.names
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names or [], pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def read_settings(path: Path) -> dict[str, Any]:
    """The roles in a folder's catalog.yaml."""
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict):
        raise VitrineError(f"{path} must hold `roles:` and below it role: column.")
    for key in settings:
        if key != "roles":
            raise VitrineError(
                f"{path} has an unknown key {key!r}.{did_you_mean(str(key), ['roles'])}"
            )
    roles = settings.get("roles") or {}
    if not isinstance(roles, dict):
        raise VitrineError(
            f"{path}: roles must map a role to a column, such as `title: prod_name`."
        )
    return roles
