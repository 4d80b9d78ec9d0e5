"""Reads the Yelp Open Dataset: businesses, reviews and photos."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.base import RawTables
from catalog.sources.batches import whole_table
from catalog.sources.finding import find, need, refuse_subset
from catalog.sources.folder import existing_folder
from catalog.sources.objects import object_reader
from catalog.sources.shaping import (
    grouped,
    image_paths,
    need_columns,
    split_text,
    with_column,
    without_leaks,
)

PREFIX = "yelp_academic_dataset_"
REVIEWS = pa.schema(
    [
        ("review_id", pa.string()),
        ("user_id", pa.string()),
        ("business_id", pa.string()),
        ("stars", pa.float64()),
        ("text", pa.string()),
        ("date", pa.string()),
    ]
)
PHOTOS = [f"{PREFIX}photo.json", "photos.json", "photo.json", "yelp_photos/photos.json"]
LEAKS = ["stars", "review_count", "is_open"]


def yelp_tables(config: CatalogConfig) -> RawTables:
    """Yelp's `yelp_academic_dataset_business.json` (`business_id`, `name`, `categories`, `city` …),
    `yelp_academic_dataset_review.json` (`user_id`, `business_id`, `stars`, `text`, `date`) and if there
    `photos.json` (`photo_id`, `business_id`, `caption`) with `photos/<photo_id>.jpg`. Stars and numbers of
    reviews of a business are left out, as they count what came later.
    """
    refuse_subset(config, "yelp")
    folder = existing_folder(config.path)
    businesses = need(folder, f"{PREFIX}business.json", "business.json", source="yelp")
    reviews = need(folder, f"{PREFIX}review.json", "review.json", source="yelp")
    photos = find(folder, *PHOTOS)
    notes = Notes()
    read = object_reader(reviews, REVIEWS, config, notes)
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[businesses, reviews, *([photos] if photos else [])],
        item_files=[businesses, *([photos] if photos else [])],
        read_items=partial(_businesses, businesses, photos, folder, config, notes),
        read_interactions=whole_table(read),
        roles={
            "item_id": "business_id",
            "title": "name",
            "text": ["categories", "captions", "city"],
            "category": "categories",
            "image": "photos",
            "time": "date",
            "rating": "stars",
            "review": "text",
        },
        notes=notes,
        interaction_batches=read,
    )


def _businesses(
    path: Path, photos: Path | None, folder: Path, config: CatalogConfig, notes: Notes
) -> pa.Table:
    table = read_table(path, config, notes)
    need_columns(table, ["business_id", "name", "categories", "city"], path, "yelp")
    table = without_leaks(table, LEAKS, path.name, notes)
    table = with_column(table, "categories", split_text(table["categories"], ","))
    none = pa.nulls(len(table), pa.list_(pa.string()))
    if photos is None:
        return with_column(with_column(table, "photos", none), "captions", none)
    taken = read_table(photos, config, notes)
    need_columns(taken, ["photo_id", "business_id"], photos, "yelp")
    places = [
        "photos",
        "yelp_photos/photos",
        str(photos.parent.relative_to(folder) / "photos"),
    ]
    paths = image_paths(taken["photo_id"], folder, places)
    if paths.null_count:
        lost = taken["photo_id"].filter(pc.is_null(paths))
        notes.add(
            photos.name,
            f"{len(lost)} of {len(taken)} photos have no file in the folder photos",
            "empty",
            count=len(lost),
            examples=lost[:3].to_pylist(),
        )
    owners, ids = taken["business_id"], table["business_id"]
    table = with_column(table, "photos", grouped(owners, paths, ids))
    if "caption" not in taken.column_names:
        return with_column(table, "captions", none)
    captions = taken["caption"]
    blank = pc.equal(pc.utf8_trim_whitespace(captions), "")
    captions = pc.if_else(blank, pa.scalar(None, captions.type), captions)
    return with_column(table, "captions", grouped(owners, captions, ids))
