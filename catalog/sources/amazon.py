"""Reads the Amazon reviews of 2014 and 2018 of the McAuley Lab."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader
from catalog.reading.types import is_list, is_text
from catalog.sources.base import RawTables
from catalog.sources.batches import first_row_batches, shape_batches, whole_table
from catalog.sources.feature_files import amazon_features, note_features
from catalog.sources.finding import choose, files_in, missing, plain_name
from catalog.sources.folder import existing_folder
from catalog.sources.objects import object_reader
from catalog.sources.shaping import renamed, with_column, with_empty, without_leaks

REVIEWS = pa.schema(
    [
        ("reviewerID", pa.string()),
        ("asin", pa.string()),
        ("overall", pa.float64()),
        ("unixReviewTime", pa.int64()),
        ("summary", pa.string()),
        ("reviewText", pa.string()),
    ]
)
RATINGS = ["reviewerID", "asin", "overall", "unixReviewTime"]
"""Columns of ratings_<domain>.csv, which has no header."""
LEAKS = ("salesRank", "rank", "related", "also_buy", "also_view", "similar_item", "also_viewed")
"""Sales ranks and what was bought together, counted over all purchases."""


@dataclass(frozen=True)
class _Release:
    name: str
    reviews: str
    """Pattern of the names of files with reviews; its first group is the domain."""
    columns: dict[str, str]
    """Columns of the metadata that have another name in a catalog."""


RELEASES = {
    "amazon-2014": _Release(
        "amazon-2014",
        r"(?:reviews|ratings)_(.+?)(_5)?\.(?:json|jsonl|csv)",
        {"imUrl": "image", "categories": "categories"},
    ),
    "amazon-2018": _Release(
        "amazon-2018",
        r"(?!meta_)(.+?)(_5)?\.(?:json|jsonl|csv)",
        {"imageURLHighRes": "image", "category": "categories", "main_cat": "main_category"},
    ),
}


def amazon_2014_tables(config: CatalogConfig) -> RawTables:
    """Amazon's reviews of 2014: `reviews_<domain>_5.json` (`reviewerID`, `asin`, `overall`, `reviewText`,
    `unixReviewTime`) or `ratings_<domain>.csv`, and `meta_<domain>.json` with Python's dictionaries
    (`asin`, `title`, `description`, `categories`, `price`, `imUrl`), packed or not. The subset names the
    domain. Images are URLs; `image_features_<domain>.b` is written by an
    import.
    """
    return _tables(RELEASES["amazon-2014"], config)


def amazon_2018_tables(config: CatalogConfig) -> RawTables:
    """Amazon's reviews of 2018: `<domain>_5.json` or `<domain>.csv`, and `meta_<domain>.json` (`asin`,
    `title`, `description`, `feature`, `category`, `price`, `imageURL`, `imageURLHighRes`), packed or not. The
    subset names the domain. Images are URLs.
    """
    return _tables(RELEASES["amazon-2018"], config)


def _tables(release: _Release, config: CatalogConfig) -> RawTables:
    folder = existing_folder(config.path)
    files = files_in(folder, depth=2)
    metas = {
        found[1]: path
        for path in files
        if (found := re.fullmatch(r"meta_(.+)\.(?:json|jsonl)", plain_name(path)))
    }
    parts: dict[str, tuple[str, Path]] = {}
    for path in files:
        found = re.fullmatch(release.reviews, plain_name(path))
        if found and found[1] in metas:
            parts[found[1] + (found[2] or "")] = found[1], path
    if not metas:
        raise missing(folder, "file meta_<domain>.json", release.name)
    if not parts:
        raise missing(folder, f"reviews of {', '.join(metas)} beside their metadata", release.name)
    name, (domain, path) = choose(parts, config, folder, "set of reviews")
    notes = Notes()
    features = [amazon_features(one) for one in files if one.name == f"image_features_{domain}.b"]
    note_features(features, notes)
    items = _items(metas[domain], release, config, notes)
    reviews = _reviews(path, config, notes)
    return RawTables(
        name=name,
        folder=folder,
        files=[metas[domain], path],
        item_files=[metas[domain]],
        read_items=whole_table(items),
        read_interactions=whole_table(reviews),
        roles={
            "title": "title",
            "text": ["description", "feature", "brand"],
            "category": "category",
            "image": "image",
            "price": "price",
        }
        | ({} if plain_name(path).endswith(".csv") else {"review": "reviewText"}),
        features=features,
        notes=notes,
        item_batches=items,
        interaction_batches=reviews,
    )


def _reviews(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    if not plain_name(path).endswith(".csv"):
        return object_reader(path, REVIEWS, config, notes)
    # The files of 2018 begin with the item, those of 2014 with the user.
    swapped = not path.name.startswith("ratings_")
    names = [RATINGS[1], RATINGS[0], *RATINGS[2:]] if swapped else RATINGS
    return batch_reader(path, config, notes, names)


def _items(path: Path, release: _Release, config: CatalogConfig, notes: Notes) -> BatchReader:
    read = shape_batches(batch_reader(path, config, notes), partial(_shaped, path, release), notes)
    return first_row_batches(read, "asin", path.name, notes)


def _shaped(path: Path, release: _Release, table: pa.Table, notes: Notes) -> pa.Table:
    if "asin" not in table.column_names:
        raise VitrineError(f"{path} names no asin; it is no metadata of Amazon's reviews.")
    table = without_leaks(table, LEAKS, path.name, notes)
    table = _without_scripts(table, path, notes)
    names = {old: new for old, new in release.columns.items() if new not in table.column_names}
    table = renamed(table, names)
    if "image" in table.column_names and "imageURL" in table.column_names:
        table = with_column(table, "image", _first_of(table["image"], table["imageURL"]))
    elif "imageURL" in table.column_names:
        table = renamed(table, {"imageURL": "image"})
    table = with_empty(table, ["title", "description", "feature", "brand", "image", "price"])
    table = with_empty(table, ["categories"])
    return with_column(table, "category", _narrowest(table["categories"]))


def _without_scripts(table: pa.Table, path: Path, notes: Notes) -> pa.Table:
    """The table without the titles that are a page's script: some pages of 2018 were not parsed."""
    if "title" not in table.column_names or not is_text(table["title"].type):
        return table
    scripts = pc.fill_null(pc.match_substring(table["title"], "getTime"), False)
    if count := pc.sum(scripts).as_py():
        notes.add(
            f"{path.name}: title",
            f"{count} titles are scripts of the page; they are left empty",
            "empty",
            count=count,
            examples=table["asin"].filter(scripts)[:3].to_pylist(),
        )
    none = pa.scalar(None, table["title"].type)
    return with_column(table, "title", pc.if_else(scripts, none, table["title"]))


def _first_of(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first column, or the second where it is empty; the first where their types differ."""
    if one.type != other.type:
        return one
    if is_list(one.type):
        empty = pc.fill_null(pc.equal(pc.list_value_length(one), 0), True)
        return pc.if_else(empty, other, one)
    return pc.coalesce(one, other)


def _narrowest(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The last name of a path of categories, of the first path where there are several."""
    if is_list(column.type) and is_list(column.type.value_type):
        column = _at(column, 0)
    if is_list(column.type):
        return _at(column, -1)
    return column


def _at(column: pa.ChunkedArray, place: int) -> pa.ChunkedArray:
    """The first (0) or last (-1) element of each list; null where it is empty."""
    made = []
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0)
        full = pc.greater(lengths, 0)
        starts = chunk.offsets[:-1] if place == 0 else pc.subtract(chunk.offsets[1:], 1)
        made.append(chunk.values.take(pc.if_else(full, starts, pa.scalar(None, starts.type))))
    return pa.chunked_array(made, column.type.value_type)
