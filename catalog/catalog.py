"""What is recommended, to whom: items and time-ordered histories, read once and memory-mapped."""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from catalog.cache import cache_folder
from catalog.checksums import (
    checksum_mismatch,
    compute_checksums,
    dumps_with_checksum,
    loads_with_checksum,
)
from catalog.columns import as_text, cut_title
from catalog.config import CatalogConfig
from catalog.convert import Converted, convert
from catalog.errors import BrokenFileError, VitrineError, did_you_mean
from catalog.images import SUFFIXES, Crop, read_image
from catalog.memory import release_buffers
from catalog.sources import SOURCES, RawTables
from catalog.video_audio import SUFFIXES as FILM_SUFFIXES

FORMAT = 5
"""Raised when the converted files change, so that older ones are made anew."""
SEAL = "seal.json"
"""Beside what was converted: the checksum of each file."""
VECTOR_SUFFIXES = {".npy", ".safetensors", ".parquet"}
ROWS_PER_BATCH = 65_536


def load_catalog(config: CatalogConfig) -> "Catalog":
    """Opens a catalog; the first time it is converted into the cache (see `cache_folder`).

    Raises VitrineError for everything in the folder or the config that a person must put right.
    """
    source = SOURCES.get(config.source)
    if source is None:
        raise VitrineError(
            f"catalog.source {config.source!r} is unknown.{did_you_mean(config.source, SOURCES)}"
        )
    raw = source(config)
    fingerprint, content_fingerprint = _fingerprints(raw, config)
    # Items keep absolute picture paths, so a catalog that was moved is converted again.
    place = hashlib.sha256(str(raw.folder).encode()).hexdigest()[:8]
    folder = cache_folder() / "catalogs" / f"{fingerprint[:24]}-{place}-{FORMAT}"
    fault = _fault_in(folder) if folder.exists() else ""
    if fault:
        print(f"vitrine: {folder} is not what was written ({fault}); made anew", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    if fault or not folder.exists():
        _write(convert(raw, config), folder)
    return _open(raw, fingerprint, content_fingerprint, folder)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Everybody's histories end to end (CSR), ordered by person, time and the tie rule."""

    offsets: NDArray[np.int64]
    """(num_users + 1,): person u's rows are offsets[u] … offsets[u + 1]."""
    items: NDArray[np.int32]
    """(num_interactions,): rows of the items table."""
    times: NDArray[np.int64]
    """(num_interactions,): seconds since 1970 where the column held dates, else its own numbers."""
    reviews: Sequence[str | None] | None = None
    """(num_interactions,): reviews, each read when asked for; None without such a column."""
    ratings: NDArray[np.float32] | None = None
    """(num_interactions,); None where there is no such column."""
    split_labels: pa.ChunkedArray | None = None
    """(num_interactions,): which part of a split each belongs to, in the table's own words."""

    def __len__(self) -> int:
        return len(self.items)

    def history(self, user: int) -> NDArray[np.int32]:
        """The items of one person, oldest first: int32 (length,)."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclass(eq=False)
class Catalog:
    """Items and interactions of one domain. Rows are numbered as in the items table."""

    name: str
    """What the catalog is called in reports: its folder's name."""
    folder: Path
    """Where its pictures lie."""
    fingerprint: str
    """sha256 of what was read: tables' bytes, pictures' paths and sizes, the reading rules."""
    content_fingerprint: str
    """sha256 of what says what items hold: the items table's bytes, media paths and sizes, the roles.
    What is derived from items alone is cached under it, and outlives another interaction."""
    items: Dataset
    """item_id; title, text, category, image (absolute path): str or None; price: float or None."""
    columns: pa.Table
    """The items table's own columns, as they came, memory-mapped; rows as in `items`."""
    user_ids: NDArray[np.str_]
    """(num_users,)"""
    interactions: Interactions
    edges: NDArray[np.int32] | None = None
    """(e, 2): rows of items that the catalog links; None where it has no edges table."""
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Which column was read as what: {"items": {role: column}, "interactions": {…}}."""
    has_timestamps: bool = True
    """False where times only order each person's own items; one cut for all then means nothing."""
    num_dropped: int = 0
    """Interactions left out because they name items the items table lacks."""
    broken_images: dict[int, str] = field(default_factory=dict)
    """Item → why its picture could not be read; grows as pictures are asked for."""

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
        """The person's row; VitrineError, with the nearest ids, where there is none."""
        return _row_of(self._user_rows, user_id, "person", self.name)

    def select_items(self, items: NDArray[np.int64]) -> "Catalog":
        """These items alone (n,), in this order, and nobody's histories.

        What is kept of a whole catalog, such as decoded pictures, is then made for them alone.
        """

        def of_these(fingerprint: str) -> str:
            return hashlib.sha256(fingerprint.encode() + items.tobytes()).hexdigest()

        nobody = Interactions(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
        return replace(
            self,
            fingerprint=of_these(self.fingerprint),
            content_fingerprint=of_these(self.content_fingerprint),
            items=Dataset(self.items.data.table.take(items)),
            columns=self.columns.take(items),
            user_ids=self.user_ids[:0],
            interactions=nobody,
            edges=None,
            broken_images={},
        )

    def item_text(self, item: int) -> str | None:
        """The title and, after ". ", the text; None where the item has neither. Of a title longer than
        `columns.TITLE` letters the rest comes last: it must not push the text out of what is read."""
        return self._texts(int(item))

    def texts(self, column: str = "text") -> "ItemTexts":
        """`item_text` for "text"; otherwise that column alone."""
        if column == "text":
            return self._texts
        return ItemTexts([as_text(self.column(column), column)])

    @cached_property
    def _texts(self) -> "ItemTexts":
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
        """The file a column names, absolute; None where there is none, or no such column.

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
        """The picture as (height, width, 3) uint8 RGB, framed as `read_image` says.

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


class ItemTexts:
    """One text for each item: the columns' words, joined by ". ", None where all are empty. The first of
    several columns is a title, of which what is too long for one comes last."""

    def __init__(self, columns: list[pa.ChunkedArray]) -> None:
        self.columns = columns

    def __call__(self, item: int) -> str | None:
        words = [column[item].as_py() for column in self.columns]
        rest = ""
        if len(words) > 1 and words[0]:
            words[0], rest = cut_title(words[0])
        return f"{'. '.join(word for word in words if word)} {rest}".strip() or None

    def release(self) -> None:
        """Lets go of memory that only mirrors the files."""
        for column in self.columns:
            for chunk in column.chunks:
                release_buffers(chunk)


def _row_of(rows: dict[str, int], wanted: str | int, what: str, name: str) -> int:
    row = rows.get(str(wanted))
    if row is None:
        raise VitrineError(
            f"the catalog {name} has no {what} {str(wanted)!r}.{did_you_mean(str(wanted), rows)}"
        )
    return row


def _fingerprints(raw: RawTables, config: CatalogConfig) -> tuple[str, str]:
    """Of the whole catalog, and of what its items hold: sha256 over tables' bytes, media files'
    relative paths and sizes, and the reading rules."""
    rules = [config.source, config.unknown_items, config.min_rating, config.ties, config.roles]
    whole = hashlib.sha256(json.dumps(rules, sort_keys=True, default=str).encode())
    roles = [config.source, config.roles]
    content = hashlib.sha256(json.dumps(roles, sort_keys=True, default=str).encode())
    for path in raw.files:
        with path.open("rb") as file:
            line = f"\n{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()
        whole.update(line)
        if path in raw.item_files:
            content.update(line)
    tables = tuple(f"\n{path.name} " for path in raw.files if path.parent == raw.folder)
    for media in sorted(_picture_lines(str(raw.folder), "")):
        line = media.encode(errors="surrogateescape")
        whole.update(line)
        if not media.startswith(tables):
            content.update(line)
    return whole.hexdigest(), content.hexdigest()


def _picture_lines(folder: str, inside: str) -> list[str]:
    """One line for each picture, film or sound below `folder`.

    A link is told from a file, as it may lead away.
    """
    lines: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                lines += _picture_lines(entry.path, f"{name}/")
            elif entry.is_symlink():
                lines.append(f"\n{name} → {os.readlink(entry.path)}")
            elif (suffix := os.path.splitext(entry.name)[1].lower()) in SUFFIXES | FILM_SUFFIXES:
                lines.append(f"\n{name} {entry.stat().st_size}")
            elif suffix in VECTOR_SUFFIXES:
                lines.append(f"\n{name} {entry.stat().st_size} {_ends(entry.path)}")
    return lines


def _ends(path: str) -> str:
    """sha256 of a file's first and last 64 kB; of vectors, whose size says little."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(65_536))
        file.seek(max(0, os.fstat(file.fileno()).st_size - 65_536))
        digest.update(file.read(65_536))
    return digest.hexdigest()


def _write(content: Converted, folder: Path) -> None:
    """Writes beside the final place and renames, so that nobody opens half a catalog."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.partial-{platform.node()}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    arrays = {
        "user_ids": content.user_ids,
        "offsets": content.offsets,
        "items": content.item_rows,
        "times": content.times,
        "ratings": content.ratings,
        "edges": content.edges,
    }
    for name, array in arrays.items():
        if array is not None:
            np.save(staging / f"{name}.npy", array, allow_pickle=False)
    _write_table(content.items, staging / "items.arrow")
    _write_table(content.columns, staging / "columns.arrow")
    if content.reviews is not None:
        _write_table(content.reviews, staging / "reviews.arrow")
    if content.split_labels is not None:
        _write_table(content.split_labels, staging / "split_labels.arrow")
    about = {
        "roles": content.roles,
        "has_timestamps": content.has_timestamps,
        "num_dropped": content.num_dropped,
    }
    (staging / "about.json").write_text(json.dumps(about), encoding="utf8")
    (staging / SEAL).write_text(
        dumps_with_checksum({"files": compute_checksums(staging)}), encoding="utf8"
    )
    try:
        staging.rename(folder)
    except OSError:
        # Another process converted the same content meanwhile; either result will do.
        shutil.rmtree(staging)
        if not folder.exists():
            raise


def _fault_in(folder: Path) -> str:
    """What a disk, or a person, has done to what was converted; "" for nothing."""
    try:
        return checksum_mismatch(
            folder, loads_with_checksum((folder / SEAL).read_text(encoding="utf8"))["files"]
        )
    except (OSError, ValueError, KeyError):
        return f"{SEAL} cannot be read"


def _write_table(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=ROWS_PER_BATCH)


def _open(raw: RawTables, fingerprint: str, content_fingerprint: str, folder: Path) -> Catalog:
    about = json.loads((folder / "about.json").read_text(encoding="utf8"))
    reviews, split_labels = folder / "reviews.arrow", folder / "split_labels.arrow"
    interactions = Interactions(
        offsets=_open_array(folder / "offsets.npy"),
        items=_open_array(folder / "items.npy"),
        times=_open_array(folder / "times.npy"),
        reviews=Dataset.from_file(str(reviews))["review"] if reviews.exists() else None,
        ratings=_open_array(folder / "ratings.npy") if (folder / "ratings.npy").exists() else None,
        split_labels=_open_table(split_labels)["split"] if split_labels.exists() else None,
    )
    return Catalog(
        name=raw.name,
        folder=raw.folder,
        fingerprint=fingerprint,
        content_fingerprint=content_fingerprint,
        items=Dataset.from_file(str(folder / "items.arrow")),
        columns=_open_table(folder / "columns.arrow"),
        user_ids=_open_array(folder / "user_ids.npy"),
        interactions=interactions,
        edges=_open_array(folder / "edges.npy") if (folder / "edges.npy").exists() else None,
        **about,
    )


def _open_table(path: Path) -> pa.Table:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _open_array(path: Path) -> NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)
