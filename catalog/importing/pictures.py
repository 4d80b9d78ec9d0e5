"""Brings pictures and other media to the imported folder: files are linked, embedded pictures written."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import errno
import os
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.atomic_write import fsync_file
from catalog.columns import first_text
from catalog.errors import VitrineError
from catalog.fetching.run import Fetcher
from catalog.fingerprint import VECTOR_SUFFIXES
from catalog.images import SUFFIXES
from catalog.notes import CountedNotes, Notes
from catalog.picture_types import picture_suffix
from catalog.sources import RawTables
from catalog.values.ids import is_text
from catalog.values.paths import Finder, find_pictures, split_addresses
from catalog.video_audio import SUFFIXES as VIDEO_AUDIO_SUFFIXES

FOLDER = "images"
"""Where pictures lie in the imported folder."""
FETCHED = "fetched"
"""Folder of fetched pictures below it."""
LOOKED_AT = 100
"""Values by which a column of media files is recognized."""
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES}
"""Errors where a file cannot be linked, but copied."""


def embedded_columns(schema: pa.Schema) -> list[str]:
    """Columns of pictures inside the table: structs with the fields bytes and path."""
    found = []
    for field in schema:
        if pa.types.is_struct(field.type):
            kinds = {inner.name: inner.type for inner in field.type}
            kind = kinds.get("bytes")
            if kind and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                found.append(field.name)
    return found


def described(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with a text in place of each embedded picture."""
    for name in embedded_columns(batch.schema):
        given = pc.is_valid(batch.column(name).field("bytes"))
        texts = pc.if_else(given, pa.scalar("embedded", pa.large_string()), None)
        place = batch.schema.names.index(name)
        batch = batch.set_column(place, pa.field(name, pa.large_string()), texts)
    return batch


def media_columns(items: pa.Table, image: str | None) -> list[str]:
    """Columns that name files: that of the image, and those whose first values are media files' names."""
    found = [image] if image else []
    suffixes = tuple(SUFFIXES | VIDEO_AUDIO_SUFFIXES)
    for name in items.column_names:
        if name == image or not is_text(items[name]):
            continue
        values = items[name].slice(0, 1000).drop_null()[:LOOKED_AT].to_pylist()
        if values and all(value.lower().endswith(suffixes) for value in values):
            found.append(name)
    return found


class Pictures:
    """Files of the source that the imported folder holds."""

    def __init__(
        self,
        raw: RawTables,
        output: Path,
        columns: list[str],
        fetcher: Fetcher | None = None,
    ) -> None:
        """`columns`: those that name files or hold embedded pictures; `fetcher`: of pictures on the web."""
        self.raw, self.output, self.columns, self.fetcher = raw, output, columns, fetcher
        self.base = os.path.realpath(raw.folder)
        self.finder = Finder(self.base)
        self.counted = CountedNotes()
        self.made: set[str] = set()
        """Folders of the output that exist."""
        self.row = 0

    def bring(self, batch: pa.RecordBatch, ids: pa.Array) -> pa.RecordBatch:
        """Writes and links the pictures of a batch; its columns then name files of the output."""
        for name in embedded_columns(batch.schema):
            batch = _set(batch, name, self._write_embedded(batch, name))
        for name in self.columns:
            column = batch.column(batch.schema.names.index(name))
            try:
                texts = first_text(pa.chunked_array([column]), name)
            except VitrineError:  # a column without text form stays as it is
                continue
            batch = _set(batch, name, self._link(name, texts, ids))
        self.row += batch.num_rows
        return batch

    def _link(self, name: str, texts: pa.ChunkedArray, ids: pa.Array) -> pa.Array:
        where = f"items: {name}"
        known = pa.chunked_array([ids])
        fetched: dict[str, str] = {}
        if self.fetcher is not None:
            texts, addresses = split_addresses(texts, where, self.counted)
            fetched = self._link_fetched(pc.unique(texts.filter(addresses)), self.fetcher)
            paths = pc.if_else(addresses, pa.scalar(None, texts.type), texts)
        else:
            paths = texts
        found = find_pictures(paths, known, self.raw.folder, where, self.counted, self.finder)
        written: list[str | None] = []
        for given, path in zip(texts.to_pylist(), found.to_pylist(), strict=True):
            if given in fetched:
                written.append(fetched[given])
            elif path is None or not self.finder.exists(path):
                written.append(given)
            else:
                inside = os.path.relpath(path, self.base)
                parts = inside.split(os.sep)
                inside = os.path.join(*parts[parts[0] == FOLDER and len(parts) > 1 :])
                written.append(self._link_file(path, inside))
        return pa.array(written, pa.large_string())

    def _link_fetched(self, urls: pa.Array, fetcher: Fetcher) -> dict[str, str]:
        """Web address → path in the output, of those that were fetched."""
        files = ((url, fetcher.file_of(url)) for url in urls.to_pylist())
        return {
            url: self._link_file(str(path), os.path.join(FETCHED, path.parent.name, path.name))
            for url, path in files
            if path is not None
        }

    def _link_file(self, path: str, inside: str) -> str:
        """Links a file as images/<inside>; returns its path in the output."""
        name = f"{FOLDER}/{inside.replace(os.sep, '/')}"
        target = self._target(name)
        try:
            os.link(os.path.realpath(path), target)
        except FileExistsError:
            first = os.stat(path)
            there = target.stat()
            if (first.st_size, first.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
                return self._link_file(path, f"more/{inside}")
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copy2(path, target)
            fsync_file(target)
        return name

    def _target(self, name: str) -> Path:
        target = self.output / name
        folder = str(target.parent)
        if folder not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(folder)
        return target

    def _write_embedded(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Writes each picture's bytes to a file of its own."""
        safe = re.sub(r"\W+", "_", name) or "image"
        written: list[str | None] = []
        unknown = 0
        column = batch.column(name).field("bytes")
        for place, value in enumerate(column):
            content = value.as_py()
            suffix = picture_suffix(content) if content else None
            unknown += bool(content) and suffix is None
            if content and suffix:
                path = f"{FOLDER}/{safe}/{self.row + place}.{suffix}"
                target = self._target(path)
                target.write_bytes(content)
                fsync_file(target)
                written.append(path)
            else:
                written.append(None)
        if unknown:
            what = f"{unknown} embedded pictures are of no known form, so these items have none"
            self.counted.add(f"items: {name}", what, "empty", count=unknown)
        return pa.array(written, pa.large_string())

    def link_vectors(self) -> None:
        """Links files of precomputed features, and their ids, that lie beside the tables."""
        for path in sorted(Path(self.base).iterdir()):
            is_ids = path.name.endswith(".ids.txt")
            if path.is_file() and path not in self.raw.files:
                table = path.name.startswith(("items.", "interactions.", "edges."))
                if (path.suffix.lower() in VECTOR_SUFFIXES or is_ids) and not table:
                    target = self._target(path.name)
                    try:
                        os.link(path, target)
                    except OSError as error:
                        if error.errno not in NO_LINK:
                            raise
                        shutil.copy2(path, target)
                        fsync_file(target)

    def add_notes(self, notes: Notes) -> None:
        self.counted.add_to(notes)


def _set(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    place = batch.schema.names.index(name)
    return batch.set_column(place, pa.field(name, values.type), values)
