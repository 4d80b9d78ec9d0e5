"""Reads MicroLens, PixelRec and NineRec: pictures and titles of videos, and who watched them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import BatchReader, batch_reader, read_table
from catalog.sources.base import RawTables
from catalog.sources.batches import distinct_batches, shape_batches, whole_table
from catalog.sources.finding import choose, files_in, missing, plain_name
from catalog.sources.folder import existing_folder
from catalog.sources.purchases import columns_of
from catalog.sources.sequences import line_reader, sequence_reader
from catalog.sources.shaping import (
    first_rows,
    image_paths,
    need_columns,
    renamed,
    with_column,
    with_empty,
    without_leaks,
)

PAIRS = ["user_id", "item_id", "timestamp"]
LEAKS = [
    "view_number",
    "comment_number",
    "thumbup_number",
    "share_number",
    "coin_number",
    "favorite_number",
    "barrage_number",
]


def microlens_tables(config: CatalogConfig) -> RawTables:
    """MicroLens' `<name>_pairs.csv` (`user,item,timestamp` in ms) or `<name>_pairs.tsv` (user, and items
    separated by blanks, without times), and if there `<name>_titles.csv` or `<name>_title_en.csv`,
    `<name>_covers/<item>.jpg` and `<name>_videos/<item>.mp4`. Likes and views are not read, as they count
    what came later. The subset names the release, such as MicroLens-100k.
    """
    folder = existing_folder(config.path)
    files = files_in(folder, depth=1)
    parts: dict[str, Path] = {}
    for path in files:
        found = re.fullmatch(r"(.+)_pairs\.(csv|tsv)", plain_name(path), re.IGNORECASE)
        if found and (found[1] not in parts or found[2].lower() == "csv"):  # csv has times
            parts[found[1]] = path
    if not parts:
        raise missing(folder, "file <name>_pairs.csv", "microlens")
    name, pairs = choose(parts, config, folder, "release")
    titles = _beside(files, name, ("_titles.csv", "_title_en.csv", "_title.csv"))
    notes = Notes()
    if likes := _beside(files, name, ("_likes_and_views.txt", "_likes_and_views.tsv")):
        notes.add(
            likes.name,
            "is not read: it counts what came after the interactions to be predicted",
            "dropped",
        )
    sequences = plain_name(pairs).lower().endswith(".tsv")
    read = (sequence_reader if sequences else _pairs)(pairs, config, notes)
    return RawTables(
        name=name,
        folder=folder,
        files=[pairs, *([titles] if titles else [])],
        item_files=[titles or pairs],
        read_items=lambda: _titled(titles, name, folder, read, config, notes),
        read_interactions=whole_table(read),
        roles={"title": "title", "image": "cover"},
        notes=notes,
        interaction_batches=read,
    )


def pixelrec_tables(config: CatalogConfig) -> RawTables:
    """PixelRec's two tables `Pixel<size>.csv`, distinguished by their columns: interactions (`item_id`,
    `user_id`, `timestamp`) and information (`item_id`, `title`, `tag`, `description`), and if there
    `cover/<item_id>.jpg`. Numbers of views, likes and the like are left out, as they count what came later.
    The subset names the size, such as Pixel200K.
    """
    folder = existing_folder(config.path)
    parts: dict[str, dict[str, Path]] = {}
    for path in files_in(folder, depth=2):
        head = columns_of(path, config)
        kind = "pairs" if {"user_id", "item_id"} <= set(head) else "items"
        if kind == "pairs" or {"item_id", "title"} <= set(head):
            parts.setdefault(plain_name(path).rpartition(".")[0], {})[kind] = path
    whole = {name: both for name, both in parts.items() if len(both) == 2}
    if not whole:
        raise missing(
            folder, "interactions and information Pixel<size>.csv of one name", "pixelrec"
        )
    name, both = choose(whole, config, folder, "size")
    notes = Notes()
    return RawTables(
        name=name,
        folder=folder,
        files=[both["items"], both["pairs"]],
        item_files=[both["items"]],
        read_items=partial(_information, both["items"], folder, config, notes),
        read_interactions=partial(read_table, both["pairs"], config, notes),
        roles={"title": "title", "text": ["description"], "category": "tag", "image": "cover"},
        notes=notes,
        interaction_batches=batch_reader(both["pairs"], config, notes),
    )


def ninerec_tables(config: CatalogConfig) -> RawTables:
    """NineRec's `<name>_pair.csv` (`user_id`, `item_id` and, but for QB and TN, `timestamp`) or
    `<name>_behaviour.tsv` (user, and items separated by blanks), `<name>_item.csv` (id and titles) and if
    there `<name>_cover/<item>.jpg`. The subset names the dataset, such as Bili_Food.
    """
    folder = existing_folder(config.path)
    files = files_in(folder, depth=1)
    parts: dict[str, Path] = {}
    for path in files:
        found = re.fullmatch(r"(.+)_(pair\.csv|behaviou?r\.tsv)", plain_name(path), re.IGNORECASE)
        if found and (found[1] not in parts or found[2].lower() == "pair.csv"):
            parts[found[1]] = path
    if not parts:
        raise missing(folder, "file <name>_pair.csv or <name>_behaviour.tsv", "ninerec")
    name, pairs = choose(parts, config, folder, "dataset")
    items = _beside(files, name, ("_item.csv", "_items.csv"))
    if items is None:
        raise missing(folder, f"file {name}_item.csv", "ninerec")
    sequences = plain_name(pairs).lower().endswith(".tsv")
    notes = Notes()
    read = (sequence_reader if sequences else _pairs)(pairs, config, notes)
    return RawTables(
        name=name,
        folder=folder,
        files=[items, pairs],
        item_files=[items],
        read_items=partial(_nine_items, items, name, folder, config, notes),
        read_interactions=whole_table(read),
        roles={"title": "title", "text": ["titles"], "image": "cover"},
        notes=notes,
        interaction_batches=read,
    )


def _beside(files: list[Path], name: str, endings: tuple[str, ...]) -> Path | None:
    names = {plain_name(path).lower(): path for path in files}
    return next((names[key] for end in endings if (key := f"{name}{end}".lower()) in names), None)


def _covers(name: str) -> list[str]:
    """Folders that may hold the pictures."""
    own = (f"{name}_covers", f"{name}_cover")
    return [*own, *(f"{name}/{one}" for one in own), "covers", "cover"]


def _pairs(path: Path, config: CatalogConfig, notes: Notes) -> BatchReader:
    """user_id, item_id and, where there are times, timestamp; with or without a header."""

    def shape(table: pa.Table, notes: Notes) -> pa.Table:
        if not {"user", "user_id"} & set(table.column_names):
            table = renamed(table, dict(zip(table.column_names, PAIRS, strict=False)))
        table = renamed(table, {"user": "user_id", "item": "item_id"})
        need_columns(table, PAIRS[:2], path, "microlens")
        if "timestamp" not in table.column_names:
            notes.add(path.name, "has no times; each user's interactions are in the file's order")
        return table

    return shape_batches(batch_reader(path, config, notes), shape, notes)


def _titled(
    path: Path | None,
    name: str,
    folder: Path,
    pairs: BatchReader,
    config: CatalogConfig,
    notes: Notes,
) -> pa.Table:
    """Items with title, cover and video; titles may hold commas, so lines are divided once."""
    if path is None:
        notes.add("items", "are the distinct ids of the interactions, as there are no titles")
        table = with_empty(distinct_batches(pairs, "item_id"), ["title"])
    else:
        lines = whole_table(line_reader(path, config, notes))()["line"]
        halves = pc.split_pattern(lines, ",", max_splits=1).combine_chunks()
        two = pc.equal(pc.list_value_length(halves), 2)
        ids = pc.list_element(halves, 0)
        none = pa.scalar(None, halves.type)
        title = pc.list_element(pc.if_else(two, halves, none), 1)
        table = pa.table({"item_id": _unquoted(ids), "title": _unquoted(title)})
        if table["item_id"][:1].to_pylist() in (["item"], ["item_id"]):
            table = table.slice(1)
        table = first_rows(table, "item_id", path.name, notes)
    table = with_column(table, "cover", image_paths(table["item_id"], folder, _covers(name)))
    videos = next((one for one in (f"{name}_videos", "videos") if (folder / one).is_dir()), None)
    if videos:
        there = pa.array(sorted(f.stem for f in (folder / videos).iterdir() if f.suffix == ".mp4"))
        paths = pc.binary_join_element_wise(f"{videos}/", table["item_id"], ".mp4", "")
        known = pc.is_in(table["item_id"], value_set=there.cast(pa.string()))
        table = with_column(table, "video", pc.if_else(known, paths, pa.scalar(None, pa.string())))
    return table


def _unquoted(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Texts without the double quotes around them."""
    quoted = pc.match_substring_regex(column, r'^\s*".*"\s*$')
    inner = pc.replace_substring(pc.replace_substring_regex(column, r'^\s*"|"\s*$', ""), '""', '"')
    return pc.utf8_trim_whitespace(pc.if_else(quoted, inner, column))


def _information(path: Path, folder: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    table = read_table(path, config, notes)
    table = without_leaks(table, LEAKS, path.name, notes)
    table = with_empty(table, ["title", "tag", "description"])
    covers = image_paths(table["item_id"], folder, ["cover", "covers", "images"])
    return first_rows(with_column(table, "cover", covers), "item_id", path.name, notes)


def _nine_items(
    path: Path, name: str, folder: Path, config: CatalogConfig, notes: Notes
) -> pa.Table:
    """item_id, title (the last one, in English where there are two) and titles (all of them)."""
    table = read_table(path, config, notes)
    if len(table.column_names) < 2:
        raise VitrineError(f"{path} has one column; it needs an id and a title.")
    first, *others = table.column_names
    named = {first: "item_id"} | ({others[-1]: "title"} if "title" not in others else {})
    table = renamed(table, named)
    texts = [one for one in table.column_names if one not in ("item_id", "title")]
    table = (
        with_empty(table, ["titles"])
        if not texts
        else with_column(table, "titles", table[texts[0]])
    )
    table = with_column(table, "cover", image_paths(table["item_id"], folder, _covers(name)))
    return first_rows(table, "item_id", path.name, notes)
