"""Reads MIND, Microsoft's news recommendation dataset: news, and impressions with clicks."""

from functools import partial
from pathlib import Path

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.base import RawTables
from catalog.sources.batches import whole_table
from catalog.sources.finding import defaults, find, missing, need, refuse_subset
from catalog.sources.folder import existing_folder
from catalog.sources.mind_clicks import click_reader
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
    clicks = click_reader({part: path for part, (_, path) in parts.items()}, rules, notes)
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[path for pair in parts.values() for path in pair],
        item_files=[news for news, _ in parts.values()],
        read_items=partial(_news, [news for news, _ in parts.values()], rules, notes),
        read_interactions=whole_table(clicks),
        roles={
            "title": "title",
            "text": ["abstract"],
            "category": "category",
            "time": "time",
            **({} if len(parts) == 1 else {"split": "split"}),
        },
        notes=notes,
        interaction_batches=clicks,
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
