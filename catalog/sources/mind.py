"""Reads MIND, Microsoft's news recommendation dataset: news, and impressions with clicks."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table, unite_tables
from catalog.sources.base import RawTables
from catalog.sources.finding import defaults, find, missing, need, refuse_subset
from catalog.sources.folder import existing_folder
from catalog.sources.shaping import first_rows

NEWS = [
    "news_id",
    "category",
    "subcategory",
    "title",
    "abstract",
    "url",
    "title_entities",
    "abstract_entities",
]
BEHAVIORS = ["impression_id", "user_id", "time", "history", "impressions"]
TIME = "%m/%d/%Y %I:%M:%S %p"
PARTS = {"train": "train", "dev": "validation", "valid": "validation", "test": "test"}
"""Endings of folders, as in MINDsmall_train → subset of the split."""


def mind_tables(config: CatalogConfig) -> RawTables:
    """MIND's `news.tsv` and `behaviors.tsv`, without header, in one folder or in folders that end in
    `train`, `dev` and `test`. Clicked news of an impression are interactions; the history of a user's
    first impression comes before them, undated. Several folders are a given split; dev is its test part
    where the test part has no labels or is not there.
    """
    refuse_subset(config, "mind")
    folder = existing_folder(config.path)
    parts = _parts(folder)
    notes = Notes()
    rules = defaults(config, delimiter="\t", quote="none", header="no")
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[path for pair in parts.values() for path in pair],
        item_files=[news for news, _ in parts.values()],
        read_items=partial(_news, [news for news, _ in parts.values()], rules, notes),
        read_interactions=partial(_clicks, parts, rules, notes),
        roles={
            "title": "title",
            "text": ["abstract"],
            "category": "category",
            "time": "time",
            **({} if len(parts) == 1 else {"split": "split"}),
        },
        notes=notes,
    )


def _parts(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Subset → its news and its behaviors; "" where there is one folder."""
    if find(folder, "behaviors.tsv", "news.tsv"):
        names = ("news.tsv", "behaviors.tsv")
        news, behaviors = (need(folder, name, source="mind") for name in names)
        return {"": (news, behaviors)}
    found: dict[str, tuple[Path, Path]] = {}
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        part = next((part for end, part in PARTS.items() if below.name.lower().endswith(end)), "")
        news, behaviors = find(below, "news.tsv"), find(below, "behaviors.tsv")
        if part and news and behaviors:
            if part in found:
                raise VitrineError(
                    f"{folder} holds several folders for {part}, such as {below.name}; name the one that "
                    "holds the folders of one size, or move the others."
                )
            found[part] = news, behaviors
    if not found:
        raise missing(folder, "news.tsv and behaviors.tsv", "mind", "behaviors.tsv")
    return {part: found[part] for part in ("train", "validation", "test") if part in found}


def _news(paths: list[Path], config: CatalogConfig, notes: Notes) -> pa.Table:
    """All news of the parts, each once: parts describe the same news alike."""
    table = read_table(paths, config, notes, NEWS)
    return first_rows(table, "news_id", paths[0].name, Notes() if len(paths) > 1 else notes)


def _clicks(parts: dict[str, tuple[Path, Path]], config: CatalogConfig, notes: Notes) -> pa.Table:
    tables: dict[str, pa.Table] = {}
    known: pa.Array = pa.array([], pa.string())
    for part, (_, path) in parts.items():
        table = read_table(path, config, notes, BEHAVIORS)
        clicks, labelled = _clicked(table, path, notes)
        if not labelled and tables:
            notes.add(
                str(path.relative_to(path.parents[1])), "has no labels and is left out", "dropped"
            )
            continue
        if not labelled:
            raise VitrineError(
                f"{path} has no labels, such as N1-1 for a click; give the train or dev part."
            )
        past = _histories(table, known)
        known = pc.unique(pa.chunked_array([*table["user_id"].chunks, known]))
        tables[part] = pa.concat_tables([past, clicks])
        if part:
            labels = ["train"] * len(past) + [part] * len(clicks)
            tables[part] = tables[part].append_column("split", pa.array(labels, pa.string()))
    notes.add(
        "behaviors.tsv",
        "histories are undated; each is read before all impressions of its part, a second apart",
        remedy="compare with a split by time only on interactions after the first impression",
    )
    if set(tables) == {"train", "validation"}:
        notes.add("behaviors.tsv", "the part dev is the test part, as no other has labels")
        held = tables["validation"]
        index = held.column_names.index("split")
        split = pc.if_else(pc.equal(held["split"], "validation"), "test", held["split"])
        tables["validation"] = held.set_column(index, "split", split)
    return unite_tables(list(tables.values()), list(tables), notes)


def _clicked(table: pa.Table, path: Path, notes: Notes) -> tuple[pa.Table, bool]:
    """The clicks, one row each, and whether the impressions have labels."""
    table = table.append_column("moment", _moments(table, path, notes))
    pieces: list[pa.Table] = []
    shown, labelled = 0, False
    for batch in table.to_batches():  # a block of impressions names millions of news
        lists = pc.split_pattern(batch.column("impressions"), " ")
        flat, parents = lists.flatten(), pc.list_parent_indices(lists)
        shown += len(flat)
        labelled |= bool(pc.any(pc.match_substring_regex(flat, r"-[01]$")).as_py())
        timed = pc.is_valid(batch.column("moment")).take(parents)
        clicked = pc.and_(pc.ends_with(flat, "-1"), timed)
        rows = parents.filter(clicked)
        columns = {
            "user_id": batch.column("user_id").take(rows),
            "news_id": pc.replace_substring_regex(flat.filter(clicked), r"-1$", ""),
            "time": batch.column("moment").take(rows),
        }
        pieces.append(pa.table(columns))
    clicks = pa.concat_tables(pieces)
    if labelled:
        unclicked = shown - len(clicks)
        notes.add(
            path.name,
            f"{unclicked} news that were shown and not clicked are no interactions",
            "dropped",
            count=unclicked,
        )
    return clicks, labelled


def _moments(table: pa.Table, path: Path, notes: Notes) -> pa.ChunkedArray:
    """Times of impressions; null, and noted, where one cannot be read."""
    moments = _parse(table["time"])
    if moments.null_count:
        broken = table["time"].filter(pc.is_null(moments))
        if len(broken) == len(table):
            raise VitrineError(
                f"{path} has no times such as 11/15/2019 10:22:32 AM ({broken[0].as_py()!r}); it is no "
                "behaviors.tsv of MIND."
            )
        notes.add(
            path.name,
            f"{len(broken)} impressions have no time that can be read, and are left out",
            "dropped",
            count=len(broken),
            examples=broken[:3].to_pylist(),
        )
    return moments


def _parse(times: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(times)
    return pc.strptime(trimmed, format=TIME, unit="s", error_is_null=True)


def _histories(table: pa.Table, known: pa.Array) -> pa.Table:
    """The history of each new user's first row, before the first impression, a second apart."""
    moments = _parse(table["time"])
    order = pc.sort_indices(pa.table({"t": moments}), sort_keys=[("t", "ascending")])
    users = table["user_id"].take(order)
    firsts = pa.table({"user": users, "row": order}).group_by("user", use_threads=False)
    rows = firsts.aggregate([("row", "first")])
    rows = rows.filter(pc.invert(pc.is_in(rows["user"], value_set=known)))
    histories = table["history"].take(rows["row_first"]).combine_chunks()
    lists = pc.split_pattern(pc.utf8_trim_whitespace(histories), " ")
    parents, flat = pc.list_parent_indices(lists), lists.flatten()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    starts = np.cumsum(lengths) - lengths
    owners = parents.to_numpy(zero_copy_only=False)
    left = lengths[owners] - (np.arange(len(flat)) - starts[owners])
    begin = pc.min(moments).cast(pa.int64()).as_py() or 0
    made = pa.table(
        {
            "user_id": rows["user"].combine_chunks().take(parents),
            "news_id": flat,
            "time": pa.array(begin - left).cast(pa.timestamp("s")),
        }
    )
    return made.filter(pc.not_equal(made["news_id"], ""))
