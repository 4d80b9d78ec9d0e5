"""The catalog of one domain: items and users' time-ordered histories, memory-mapped."""

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from catalog.columns import as_text
from catalog.config import CatalogConfig
from catalog.conversion.cache import cached_conversion
from catalog.errors import BrokenFileError, VitrineError, did_you_mean
from catalog.fingerprint import compute_fingerprints
from catalog.images import Crop, read_image
from catalog.interactions import Interactions
from catalog.item_texts import ItemTexts
from catalog.notes import Note
from catalog.sources import SOURCES


def load_catalog(config: CatalogConfig, quiet: bool = False) -> "Catalog":
    """Loads a catalog; the first time it is converted into the cache (see `cache_folder`), and how it was
    read is printed to stderr, unless `quiet`.

    Raises VitrineError for every fault of the folder or the config that the user must correct.
    """
    source = SOURCES.get(config.source)
    if source is None:
        raise VitrineError(
            f"catalog.source {config.source!r} is unknown.{did_you_mean(config.source, SOURCES)}"
        )
    raw = source.tables(config)
    if raw.is_volatile:
        raise VitrineError(
            f"the source {config.source} reads a database that may change at any time; import it: "
            f"vitrine catalog import {config.source} PATH --output FOLDER, and name that folder."
        )
    fingerprint, content_fingerprint = compute_fingerprints(raw, config)
    # Items keep absolute image paths, so a catalog that was moved is converted again.
    location = hashlib.sha256(str(raw.folder).encode()).hexdigest()[:8]
    keys = [f"{part[:24]}-{location}" for part in (fingerprint, content_fingerprint)]
    fields = cached_conversion(raw, config, keys[0], keys[1], quiet)
    return Catalog(raw.name, raw.folder, fingerprint, content_fingerprint, **fields)


@dataclass(eq=False)
class Catalog:
    """Items and interactions of one domain. Rows are numbered as in the items table."""

    name: str
    """Name of the catalog in reports: that of its folder."""
    folder: Path
    """Folder of its images and other media files."""
    fingerprint: str
    """sha256 of the whole content: tables' bytes, media paths and sizes, and the reading rules."""
    content_fingerprint: str
    """sha256 of the items' content: the items table's bytes, media paths and sizes, and the roles. Data
    derived from items alone is cached under it, and stays valid when interactions are added."""
    items: Dataset
    """item_id; title, text, category, image (absolute path): str or None; price: float or None."""
    columns: pa.Table
    """The items table's own columns, unchanged, memory-mapped; rows as in `items`."""
    user_ids: NDArray[np.str_]
    """(num_users,)"""
    interactions: Interactions
    edges: NDArray[np.int32] | None = None
    """(e, 2): rows of linked items; None if the catalog has no edges table."""
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The column of each role: {"items": {role: column}, "interactions": {…}}."""
    has_timestamps: bool = True
    """False where times only order each user's own items, so that no temporal split is possible."""
    num_dropped: int = 0
    """Interactions left out because they name items the items table lacks."""
    notes: list[Note] = field(default_factory=list)
    """How the tables were read: what was decided, dropped or left empty."""
    broken_images: dict[int, str] = field(default_factory=dict)
    """Item → why its image cannot be read; filled as images are read."""

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    def item_index(self, item_id: str | int) -> int:
        """The item's row; VitrineError, with the nearest ids, where there is none."""
        return _row_of(self._item_rows, item_id, "item", self.name)

    def user_index(self, user_id: str | int) -> int:
        """The user's row; VitrineError, with the nearest ids, where there is none."""
        return _row_of(self._user_rows, user_id, "user", self.name)

    def select_items(self, items: NDArray[np.int64]) -> "Catalog":
        """A catalog of these items (n,) alone, in this order, without interactions.

        Cached data, such as decoded images, is then computed for these items alone.
        """

        def derived(fingerprint: str) -> str:
            return hashlib.sha256(fingerprint.encode() + items.tobytes()).hexdigest()

        none = Interactions(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
        return replace(
            self,
            fingerprint=derived(self.fingerprint),
            content_fingerprint=derived(self.content_fingerprint),
            items=Dataset(self.items.data.table.take(items)),
            columns=self.columns.take(items),
            user_ids=self.user_ids[:0],
            interactions=none,
            edges=None,
            broken_images={},
        )

    def item_text(self, item: int) -> str | None:
        """The title and, after ". ", the text; None if the item has neither. The part of a title beyond
        `columns.TITLE` letters comes last, so that truncation to `max_tokens` does not remove the text."""
        return self._texts(int(item))

    def texts(self, column: str = "text") -> ItemTexts:
        """The texts of a column by item; for "text" those of `item_text`."""
        if column == "text":
            return self._texts
        return ItemTexts([as_text(self.column(column), column)])

    @cached_property
    def _texts(self) -> ItemTexts:
        return ItemTexts([self._columns["title"], self._columns["text"]])

    def column(self, name: str) -> pa.ChunkedArray:
        """An items' column by its role ("title", "price", …) or its own name."""
        self.check_column(name)
        roles = self.items.data
        return (roles if name in roles.column_names else self.columns).column(name)

    def has_column(self, name: str) -> bool:
        return name in self.items.column_names or name in self.columns.column_names

    def check_column(self, name: str) -> None:
        """Raises VitrineError, with the nearest names, where there is no such column."""
        if not self.has_column(name):
            known = dict.fromkeys([*self.items.column_names, *self.columns.column_names])
            raise VitrineError(
                f"the items of {self.name} have no column {name!r}.{did_you_mean(name, known)}"
            )

    def media_path(self, item: int, column: str = "image") -> str | None:
        """Absolute path of the file that a column names; None without one, or without the column.

        Raises BrokenFileError where it lies outside the catalog's folder.
        """
        if column == "image":
            return self._columns["image"][int(item)].as_py()
        if not self.has_column(column):
            return None
        path = self.column(column)[int(item)].as_py()
        if not path:
            return None
        base = os.path.realpath(self.folder)
        try:
            full = os.path.realpath(os.path.join(base, str(path)))
        except ValueError as error:
            raise BrokenFileError("its name is no file's") from error
        if not full.startswith(base + os.sep):
            raise BrokenFileError("the file lies outside the catalog's folder")
        return full

    def item_image(
        self, item: int, size: int | tuple[int, int], crop: Crop = "pad"
    ) -> NDArray[np.uint8] | None:
        """The image as (height, width, 3) uint8 RGB, padded or cropped as by `read_image`.

        None where the item has none or it cannot be read, which `broken_images` then counts.
        """
        path = self._columns["image"][int(item)].as_py()
        if path is None:
            return None
        try:
            return read_image(path, size, crop)
        except BrokenFileError as reason:
            self.broken_images[int(item)] = str(reason)
            return None

    @cached_property
    def _columns(self) -> dict[str, pa.ChunkedArray]:
        # Straight to Arrow: several times faster than a row of the Dataset.
        return {name: self.items.data.column(name) for name in ("title", "text", "image")}

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.items["item_id"][:])}

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        return {user: row for row, user in enumerate(self.user_ids.tolist())}


def _row_of(rows: dict[str, int], identity: str | int, noun: str, name: str) -> int:
    row = rows.get(str(identity))
    if row is None:
        raise VitrineError(
            f"the catalog {name} has no {noun} {str(identity)!r}.{did_you_mean(str(identity), rows)}"
        )
    return row
