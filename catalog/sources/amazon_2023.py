"""Reads Amazon Reviews 2023 of the McAuley Lab: metadata, and raw reviews or benchmark splits."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader, unite_batches
from catalog.sources.amazon_split import SPLITS, official_split
from catalog.sources.base import RawTables
from catalog.sources.batches import first_row_batches, shape_batches, whole_table
from catalog.sources.finding import choose, files_in, missing, plain_name
from catalog.sources.folder import existing_folder
from catalog.sources.objects import object_reader
from catalog.sources.shaping import lists_of, with_column, without_leaks

KINDS = ("rating_only", "last_out", "timestamp", "last_out_w_his", "timestamp_w_his")
TEXT, TEXTS = pa.string(), pa.list_(pa.string())
ITEMS = pa.schema(
    [
        ("parent_asin", TEXT),
        ("title", TEXT),
        ("main_category", TEXT),
        ("categories", TEXTS),
        ("store", TEXT),
        ("features", TEXTS),
        ("description", TEXTS),
        ("price", TEXT),
        ("images", TEXT),
        ("subtitle", TEXT),
        ("author", TEXT),
        ("average_rating", TEXT),
        ("rating_number", TEXT),
    ]
)
PICTURE = pa.list_(pa.struct([(name, TEXT) for name in ("hi_res", "large", "thumb", "variant")]))
REVIEWS = pa.schema(
    [
        ("user_id", TEXT),
        ("parent_asin", TEXT),
        ("asin", TEXT),
        ("rating", pa.float64()),
        ("timestamp", pa.int64()),
        ("title", TEXT),
        ("text", TEXT),
        ("verified_purchase", pa.bool_()),
    ]
)
Parts = dict[str, Path]


def amazon_2023_tables(config: CatalogConfig) -> RawTables:
    """Amazon Reviews 2023 as its site and Hugging Face give it: `meta_<domain>.jsonl` and, joined by
    `parent_asin`, raw reviews `<domain>.jsonl` or benchmark files `<domain>.csv`,
    `<domain>.{train,valid,test}.csv`, packed or not, in any folder below. The subset names a domain, or as
    on Hugging Face a part of it: `raw_review_All_Beauty`, `5core_timestamp_w_his_All_Beauty`. The split
    given is that of the files, or that of the official times. Times are in ms; images are URLs.
    """
    folder = existing_folder(config.path)
    files = files_in(folder, depth=4)
    metas = {
        found[1]: path
        for path in files
        if (found := re.fullmatch(r"meta_(.+)\.(?:jsonl|json|parquet)", plain_name(path)))
    }
    if not metas:
        raise missing(folder, "file meta_<domain>.jsonl", "amazon-2023")
    parts = _parts(files, folder, metas)
    if not parts:
        raise missing(folder, "reviews <domain>.jsonl or <domain>.csv", "amazon-2023")
    name, (domain, paths) = choose(_named(parts, config), config, folder, "part")
    notes = Notes()
    raw = name.startswith("raw_review_")
    items = _items(metas[domain], config, notes)
    interactions = _interactions(paths, config, notes)
    return RawTables(
        name=domain,
        folder=folder,
        files=[metas[domain], *paths.values()],
        item_files=[metas[domain]],
        read_items=whole_table(items),
        read_interactions=whole_table(interactions),
        roles={
            "title": "title",
            "text": ["features", "description"],
            "category": "main_category",
            "image": "image",
            "price": "price",
            **({"review": "text"} if raw else {}),
        },
        notes=notes,
        item_batches=items,
        interaction_batches=interactions,
    )


def _parts(files: list[Path], folder: Path, metas: Parts) -> dict[str, tuple[str, Parts]]:
    """Name of a part, as on Hugging Face → its domain and its files, by subset of the split."""
    found: dict[str, tuple[str, Parts]] = {}
    for path in files:
        name = plain_name(path)
        stem, _, suffix = name.rpartition(".")
        domain, _, part = stem.rpartition(".")
        if part not in SPLITS:
            domain, part = stem, ""
        if domain not in metas:
            continue
        if suffix == "jsonl" and not part:
            found[f"raw_review_{domain}"] = domain, {"": path}
        elif suffix == "csv":
            above = path.relative_to(folder.parent).parts[:-1]
            kind = next((one for one in reversed(above) if one in KINDS), "")
            core = next((one for one in reversed(above) if re.fullmatch(r"\dcore", one)), "")
            key = "_".join(filter(None, [core, kind or "benchmark", domain]))
            found.setdefault(key, (domain, {}))[1][part] = path
    return found


def _named(
    parts: dict[str, tuple[str, Parts]], config: CatalogConfig
) -> dict[str, tuple[str, Parts]]:
    """The parts, and by its own name each domain that has one part alone."""
    of_domain: dict[str, list[str]] = {}
    for key, (domain, _) in parts.items():
        of_domain.setdefault(domain, []).append(key)
    wanted = config.subset.strip().lower()
    for domain, keys in of_domain.items():
        if wanted == domain.lower():
            if len(keys) > 1:
                raise VitrineError(
                    f"{domain} has {len(keys)} parts: {', '.join(keys)}; name one, such as "
                    f"--catalog.subset {keys[0]}."
                )
            return {config.subset: parts[keys[0]]} if len(keys) == 1 else parts
    return parts


def _items(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    if plain_name(path).endswith(".parquet"):
        read = batch_reader(path, config, notes)
    else:
        # An object of thousands of keys, one a kind of product, would be a table of as many columns.
        read = object_reader(path, ITEMS, config, notes)
    read = shape_batches(read, partial(_shaped, path), notes)
    return first_row_batches(read, "parent_asin", path.name, notes)


def _shaped(path: Path, table: pa.Table, notes: Notes) -> pa.Table:
    if "parent_asin" not in table.column_names:
        raise VitrineError(
            f"{path} names no parent_asin; it is no metadata of Amazon Reviews 2023."
        )
    if not plain_name(path).endswith(".parquet"):
        notes.add(
            path.name,
            "details, videos and bought_together are left out",
            "dropped",
            remedy="convert them to columns of their own if they should be read",
        )
    table = without_leaks(table, ["average_rating", "rating_number"], path.name, notes)
    if "images" in table.column_names:
        table = with_column(table, "image", _pictures(table["images"]))
        table = table.drop_columns(["images"])
    prices = table["price"]
    if pa.types.is_string(prices.type):  # "None" is how some files write that there is none
        none = pa.scalar(None, TEXT)
        table = with_column(table, "price", pc.if_else(pc.equal(prices, "None"), none, prices))
    return table


def _pictures(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of addresses, the main picture first and each in the best size that there is."""
    pieces = []
    for chunk in column.chunks:
        if pa.types.is_string(chunk.type):
            chunk = _from_json(chunk)
        if pa.types.is_struct(chunk.type):  # lists by size, as in parquet
            names = [field.name for field in chunk.type]
            sizes = [chunk.field(name) for name in ("hi_res", "large", "thumb") if name in names]
            lists, flat = sizes[0], pc.coalesce(*(size.flatten() for size in sizes))
            main = pa.array(np.zeros(len(flat), bool))
        else:
            lists, inner = chunk, chunk.flatten()
            sizes = [inner.field(name) for name in ("hi_res", "large", "thumb")]
            flat = pc.coalesce(*sizes)
            main = pc.fill_null(pc.equal(inner.field("variant"), "MAIN"), False)
        parents = pc.list_parent_indices(lists)
        order = np.lexsort([~main.to_numpy(zero_copy_only=False), parents.to_numpy()])
        kept = pa.array(order).filter(pc.is_valid(flat.take(pa.array(order))))
        pieces.append(lists_of(parents.take(kept), flat.take(kept), len(lists)))
    return pa.chunked_array(pieces, TEXTS)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON names no picture
        return None


def _text(value: Any) -> str | None:
    """A text as it can be written; None for a value of another type."""
    return value.encode("utf8", "replace").decode() if isinstance(value, str) else None


def _from_json(texts: pa.Array) -> pa.Array:
    values = [_parsed(text) if text else None for text in texts.to_pylist()]
    keys = ("hi_res", "large", "thumb", "variant")
    lists = [
        [{key: _text(one.get(key)) for key in keys} for one in value if isinstance(one, dict)]
        if isinstance(value, list)
        else None
        for value in values
    ]
    return pa.array(lists, PICTURE)


def _interactions(paths: Parts, config: CatalogConfig, notes: Notes) -> BatchReader:
    if "" not in paths:
        if set(paths) != set(SPLITS):
            raise VitrineError(
                f"the split of {next(iter(paths.values())).name} lacks "
                f"{', '.join(sorted(set(SPLITS) - set(paths)))}; it needs train, valid and test."
            )
        readers = [_benchmark(paths[part], config, notes, named) for part, named in SPLITS.items()]
        return unite_batches(readers, [path.name for path in paths.values()], notes)
    path = paths[""]
    if plain_name(path).endswith(".csv"):
        return official_split(_benchmark(path, config, notes), path, notes)
    return official_split(object_reader(path, REVIEWS, config, notes), path, notes)


def _benchmark(path: Path, config: CatalogConfig, notes: Notes, split: str = "") -> BatchReader:
    """A benchmark file without histories, in a column `split` the subset that it is, if any."""

    def shape(table: pa.Table, notes: Notes) -> pa.Table:
        if "history" in table.column_names:
            what = "history repeats earlier rows of the user and is left out"
            notes.add(path.name, what, "dropped")
            table = table.drop_columns(["history"])
        if split:
            table = table.append_column("split", pa.array([split] * len(table), TEXT))
        return table

    return shape_batches(batch_reader(path, config, notes), shape, notes)
