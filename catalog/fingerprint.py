"""Computes the fingerprints of a catalog: hashes of its content, under which derived data is cached."""

import hashlib
import json
import os

from catalog.config import CatalogConfig
from catalog.file_hashes import known_sha256
from catalog.images import SUFFIXES
from catalog.sources import RawTables
from catalog.video_audio import SUFFIXES as VIDEO_AUDIO_SUFFIXES

READING = ("subset", "encoding", "delimiter", "quote", "header", "dates", "decimal")
"""Settings of how files are read; where all are auto or empty, the fingerprint is as without them."""
VECTOR_SUFFIXES = {".npy", ".safetensors", ".parquet"}


def compute_fingerprints(raw: RawTables, config: CatalogConfig) -> tuple[str, str]:
    """The fingerprints of a whole catalog, and of its items' content alone.

    sha256 over tables' bytes, media files' relative paths and sizes, and the reading rules.
    """
    given = [(name, getattr(config, name)) for name in READING]
    reading = [(name, value) for name, value in given if value not in ("auto", "")]
    reading += [("query", query) for query in raw.queries]
    roles = [config.source, config.roles, raw.roles]
    rules = [*roles, config.unknown_items, config.min_rating, config.ties]
    whole = hashlib.sha256(json.dumps([*rules, *reading], sort_keys=True, default=str).encode())
    content = hashlib.sha256(json.dumps([*roles, *reading], sort_keys=True, default=str).encode())
    for path in raw.files:
        line = f"\n{path.name} {known_sha256(path)}".encode()
        whole.update(line)
        if path in raw.item_files:
            content.update(line)
    tables = tuple(
        f"\n{path.relative_to(raw.folder).as_posix()} "
        for path in raw.files
        if path.is_relative_to(raw.folder)
    )
    for media in sorted(_media_lines(str(raw.folder), "")):
        line = media.encode(errors="surrogateescape")
        whole.update(line)
        if not media.startswith(tables):
            content.update(line)
    return whole.hexdigest(), content.hexdigest()


def _media_lines(folder: str, inside: str) -> list[str]:
    """One line for each image, video, audio and vector file below `folder`.

    A symbolic link is marked as one, as it may lead out of the folder.
    """
    lines: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                lines += _media_lines(entry.path, f"{name}/")
            elif entry.is_symlink():
                lines.append(f"\n{name} → {os.readlink(entry.path)}")
            elif (
                suffix := os.path.splitext(entry.name)[1].lower()
            ) in SUFFIXES | VIDEO_AUDIO_SUFFIXES:
                lines.append(f"\n{name} {entry.stat().st_size}")
            elif suffix in VECTOR_SUFFIXES:
                lines.append(f"\n{name} {entry.stat().st_size} {_hash_ends(entry.path)}")
    return lines


def _hash_ends(path: str) -> str:
    """sha256 of a file's first and last 64 kB; of vectors, whose size says little."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(65_536))
        file.seek(max(0, os.fstat(file.fileno()).st_size - 65_536))
        digest.update(file.read(65_536))
    return digest.hexdigest()
