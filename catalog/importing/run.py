"""Imports a catalog: any source in, the canonical folder out, all of it or nothing."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import hashlib
import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from catalog.atomic_write import (
    fsync_file,
    fsync_folders,
    publish,
    replace_folder,
    signal_progress,
    stage_folder,
)
from catalog.errors import VitrineError, did_you_mean
from catalog.fetching.config import FetchConfig
from catalog.fetching.run import Fetcher
from catalog.importing.config import ImportConfig
from catalog.importing.features import write_features
from catalog.importing.fetch import RUNTIME_ONLY_SETTINGS, fetch_pictures, open_fetcher
from catalog.importing.filters import (
    check_filters,
    filter_rows,
    refuse_repeated_ids,
    select_rows,
)
from catalog.importing.languages import drop_foreign, find_foreign
from catalog.importing.load import Reader
from catalog.importing.pictures import Pictures, embedded_columns, media_columns
from catalog.importing.store import Store
from catalog.importing.streams import Streams, assign_roles, head_of_interactions, survey_items
from catalog.importing.write import (
    EDGES,
    INTERACTIONS,
    ITEMS,
    ItemRows,
    write_edges,
    write_interactions,
    write_items,
)
from catalog.notes import CountedNotes, Notes, notes_from_json
from catalog.roles import Roles
from catalog.sources import SOURCES, RawTables
from catalog.sources.folder import SETTINGS_FILE
from catalog.values.ids import is_text, note_without_id, read_ids
from catalog.values.numbers import read_numbers
from catalog.yaml_files import dump_yaml, read_yaml

FORMAT_VERSION = 2
"""Increased when an import writes another result from the same source and settings."""
REQUEST = "request"
"""File of an import's work folder: what is imported, and how."""


@dataclass(frozen=True)
class Imported:
    """An imported folder, and what became of the source's rows."""

    folder: Path
    counts: dict[str, Any]
    """interactions, items, and pictures that are fetched: {read, dropped: {reason: rows}, written}; users."""
    notes: Notes
    is_new: bool
    """False where the folder held this import before."""


def run_import(config: ImportConfig, output: Path) -> Imported:
    """Imports `config.path` into the folder `output`, unless it holds the same import already.

    Raises VitrineError where it holds anything else, and for what the user must correct.
    """
    source = SOURCES.get(config.source)
    if source is None:
        raise VitrineError(
            f"the source {config.source!r} is unknown.{did_you_mean(config.source, SOURCES)}"
        )
    check_filters(config)
    raw = source.tables(config)
    output = output.expanduser().absolute()
    request = _request(raw, config)
    if (done := _find_done(output, request, raw)) is not None:
        return done
    fetches_again = output.exists() and any(output.iterdir())
    with (
        _open_work(output, request) as work,
        open_fetcher(config, output) as fetcher,
        stage_folder(output) as staging,
    ):
        store = Store(work)
        try:
            counts, roles = _import(Streams(raw), store, config, staging, fetcher)
        finally:
            store.close()
        imported = {
            "source": config.source,
            "path": _shown_path(config),
            "request": request,
            "settings": _settings(config),
            "counts": counts,
            "notes": raw.notes.as_json(),
        }
        if fetcher is not None and fetcher.num_transient:
            imported["fetch_again"] = fetcher.num_transient
        content = dump_yaml([json.loads(json.dumps({"roles": roles, "imported": imported}))])
        (staging / SETTINGS_FILE).write_text(content, encoding="utf8")
        for name in (ITEMS, INTERACTIONS, EDGES, SETTINGS_FILE):
            if (staging / name).exists():
                fsync_file(staging / name)
        fsync_folders(staging)
        try:
            if fetches_again:
                replace_folder(staging, output, SETTINGS_FILE)
            else:
                publish(staging, output)
        except OSError as error:
            raise VitrineError(
                f"{output} was written by another process meanwhile; choose another output."
            ) from error
        shutil.rmtree(work)
    signal_progress()
    return Imported(output, counts, raw.notes, is_new=True)


def work_folder(output: Path) -> Path:
    """The folder of the database until the import is complete; after an interruption it goes on from it."""
    return output.with_name(f"{output.name}.work")


@contextmanager
def _open_work(output: Path, request: str) -> Iterator[Path]:
    """The work folder of an import, empty unless the same import was interrupted in it.

    Raises VitrineError where another process uses it.
    """
    work = work_folder(output)
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_name(f".{work.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise VitrineError(
            f"another process imports into {output}; wait for it, or choose another output."
        ) from None
    try:
        file = work / REQUEST
        if not file.exists() or file.read_text(encoding="utf8") != request:
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            file.write_text(request, encoding="utf8")
        elif any(path != file for path in work.iterdir()):
            print(f"vitrine: continuing the import that {work} holds", file=sys.stderr)
        yield work
    except VitrineError:  # what is to be corrected makes another import
        shutil.rmtree(work)
        raise
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _import(
    streams: Streams, store: Store, config: ImportConfig, folder: Path, fetcher: Fetcher | None
) -> tuple[dict[str, Any], Roles]:
    """Writes the tables; returns the counts and the roles."""
    notes = streams.raw.notes
    survey = survey_items(streams, config)
    head = head_of_interactions(streams)
    item_roles, roles = assign_roles(streams, survey, head, config)
    ids, prices = (
        _read_ids(survey, item_roles, notes),
        _read_prices(survey, item_roles, config, notes),
    )
    media = media_columns(survey, item_roles.get("image"))
    pictures = Pictures(streams.raw, folder, _files_only(streams, media), fetcher)
    del survey, head
    refuse_repeated_ids(store, ids)
    pa.default_memory_pool().release_unused()
    reader = Reader(roles, config, notes)
    reader.survey(streams)
    # Before loading, so that an import that was interrupted later finds it done.
    foreign = find_foreign(streams, ids, item_roles, config.languages, store)
    reader.load(streams, store)
    valid = np.flatnonzero(pc.is_valid(ids).to_numpy())
    item_ids = filter_rows(store, reader, ids.drop_null(), config, notes)
    drop_foreign(store, np.searchsorted(valid, foreign))
    select_rows(store, reader, config)

    written = _written_items(store, valid, len(ids), config)
    written[foreign] = False
    fetched: dict[str, Any] = {}
    if fetcher is not None and "image" in item_roles:
        fetched["pictures"] = fetch_pictures(streams, item_roles["image"], written, fetcher, notes)
    rows = ItemRows(_spread(item_ids, ids), written, prices)
    del prices
    written_items = write_items(streams, rows, item_roles, pictures, folder / ITEMS)
    rows = replace(rows, prices=None)
    written_roles = write_interactions(store, reader, item_ids, folder / INTERACTIONS)
    write_edges(streams, rows, config.unknown_items, folder / EDGES, notes)
    pictures.link_vectors()
    if streams.raw.features:
        write_features(streams.raw.features, rows.written_ids(), folder, notes)
    pictures.add_notes(notes)
    few = len(valid) - len(foreign) - int(written.sum())
    reasons = {"no item_id": len(ids) - len(valid), "too few interactions": few}
    if config.languages:
        reasons["in another language"] = len(foreign)
    counts = {
        "interactions": {
            "read": reader.num_rows,
            "dropped": store.dropped,
            "written": store.num_kept,
        },
        "items": {"read": len(ids), "dropped": reasons, "written": int(written.sum())},
        "users": store.number("SELECT count(DISTINCT user) FROM kept"),
        **fetched,
    }
    blank = dict.fromkeys(("title", "category", "image", "price"))
    return counts, blank | {"text": []} | written_items | written_roles


def _read_ids(survey: pa.Table, roles: Roles, notes: Notes) -> pa.ChunkedArray:
    """The ids of the items, null where a row has none."""
    column = survey[roles["item_id"]]
    parts = [column]
    if is_text(column):  # each is read by itself; numbers are read as all of them allow
        parts = [pa.chunked_array([chunk]) for chunk in column.chunks]
    counted = CountedNotes()
    read = [read_ids(part, roles["item_id"], "items", counted) for part in parts]
    counted.add_to(notes)
    parts = [chunk for part in read for chunk in part.chunks]
    ids = pa.chunked_array([pa.concat_arrays(parts)] if parts else [], pa.large_string())
    note_without_id(ids, "item_id", "items", notes)
    return ids


def _read_prices(
    survey: pa.Table, roles: Roles, config: ImportConfig, notes: Notes
) -> pa.ChunkedArray | None:
    """Prices in text as numbers; None where there are none, or numbers already."""
    column = roles.get("price")
    if column is None or not is_text(survey[column]):
        return None
    try:
        return read_numbers(survey[column], column, "items", notes, decimal=config.decimal)
    except VitrineError as error:
        notes.add(f"items: {roles.pop('price')}", f"is left out as price: {error}")
        return None


def _files_only(streams: Streams, columns: list[str]) -> list[str]:
    """Of columns of media those that name files."""
    first = next(streams.items(embedded=True))
    embedded = embedded_columns(first.schema)
    return [name for name in columns if name not in embedded]


def _written_items(
    store: Store, valid: np.ndarray[Any, Any], num_rows: int, config: ImportConfig
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of the items are written: those with an id, and enough interactions."""
    written = np.zeros(num_rows, np.bool_)
    if not config.min_item_interactions:
        written[valid] = True
        return written
    for batch in store.batches("SELECT DISTINCT item FROM kept"):
        written[valid[batch.column(0).to_numpy()]] = True
    return written


def _spread(item_ids: pa.ChunkedArray, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids of items by the rows of their table, null where `ids` are."""
    if not ids.null_count:
        return item_ids
    mask = pc.is_valid(ids)
    places = pc.if_else(mask, pc.subtract(pc.cumulative_sum(mask.cast(pa.int64())), 1), None)
    return item_ids.take(places)


def _shown_path(config: ImportConfig) -> str:
    """The path as the folder's settings store it: absolute where it is one."""
    path = Path(config.path).expanduser()
    return str(path.absolute()) if path.exists() else config.path


def _settings(config: ImportConfig, *, runtime: bool = True) -> dict[str, Any]:
    """The settings that are not as by default; `runtime`: also those that say how, and not what."""
    names = [
        field.name for field in fields(config) if field.name not in ("path", "source", "fetch")
    ]
    changed = _changed(config, ImportConfig(), names)
    if config.fetch_images:
        names = [field.name for field in fields(config.fetch)]
        names = [name for name in names if runtime or name not in RUNTIME_ONLY_SETTINGS]
        changed |= {
            f"fetch.{name}": value
            for name, value in _changed(config.fetch, FetchConfig(), names).items()
        }
    return changed


def _changed(config: object, default: object, names: list[str]) -> dict[str, Any]:
    return {
        name: value for name in names if (value := getattr(config, name)) != getattr(default, name)
    }


def _request(raw: RawTables, config: ImportConfig) -> str:
    """Hash of what is imported and how; of files their names, sizes and times of change."""
    if raw.is_volatile:  # what it holds now may be no more than what it held before
        return secrets.token_hex(16)
    paths = [*raw.files, *(file.path for file in raw.features)]
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    settings = _settings(config, runtime=False)
    parts = [FORMAT_VERSION, config.source, str(raw.folder), raw.roles, settings, files]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _find_done(output: Path, request: str, raw: RawTables) -> Imported | None:
    """The same import, where the output holds it, and no picture is to be fetched again.

    VitrineError where it holds anything else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    settings = output / SETTINGS_FILE
    content = read_yaml(settings) if settings.is_file() else None
    imported = content.get("imported") if isinstance(content, dict) else None
    if not isinstance(imported, dict) or "request" not in imported:
        raise VitrineError(
            f"{output} holds files that no import wrote; choose another output, or empty it first."
        )
    if imported["request"] != request:
        raise VitrineError(
            f"{output} holds an import of another source or state ({imported.get('path')}) or with "
            "other settings; choose another output, or remove that folder first."
        )
    if imported.get("fetch_again"):
        return None
    for name in (ITEMS, INTERACTIONS):
        if not (output / name).is_file():
            raise VitrineError(f"{output} lacks {name}; remove the folder and import again.")
    notes = Notes(notes_from_json(imported["notes"]))
    return Imported(output, imported["counts"], notes, is_new=False)


def format_counts(imported: Imported) -> str:
    """What became of the rows: one line for each reason, and one for what was written."""
    lines: list[tuple[str, int]] = []
    for table in ("interactions", "items", "pictures"):
        counts = imported.counts.get(table)
        if counts is None:
            continue
        lines.append((f"{table} read", counts["read"]))
        lines += [(f"  {reason}", -count) for reason, count in counts["dropped"].items() if count]
        lines.append((f"{table} written", counts["written"]))
    lines.append(("users", imported.counts["users"]))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {count:>15,}" for name, count in lines)
