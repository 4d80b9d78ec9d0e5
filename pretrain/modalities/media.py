"""Decodes what lies in files (pictures, video, sound) once, into one memory-mapped array.

A training reads every file many times, at one size; decoding is the slow part. Interrupted, the
next run goes on where this one stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from catalog.atomic_write import signal_progress
from catalog.cache import cache_folder
from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.memory import release_pages
from catalog.progress import track
from pretrain.modalities.base import Source
from pretrain.store import shared_array

BLOCK = 256
"""Items decoded between two notes of how far it is."""
UNREAD, ABSENT, PRESENT, BROKEN = range(4)

Decoder = Callable[[str], NDArray[np.generic]]
"""A file's path → its array; raises BrokenFileError with the reason."""


class MediaCache:
    """What the items' files hold: `values` (num_items, *shape), zero where there is none."""

    def __init__(
        self,
        catalog: Catalog,
        column: str,
        name: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        decode: Decoder,
        title: str,
    ) -> None:
        """`name` says which column is decoded how; the same name, the same values."""
        place = hashlib.sha256(name.encode()).hexdigest()[:12]  # a column may be called anything
        folder = cache_folder() / "media" / f"{catalog.content_fingerprint[:16]}-{place}"
        folder.mkdir(parents=True, exist_ok=True)
        self.values = shared_array(folder / "values.npy", (catalog.num_items, *shape), dtype)
        self.states = shared_array(folder / "states.npy", (catalog.num_items,), np.uint8)
        reasons = folder / "broken.jsonl"
        if UNREAD in self.states:
            # One process decodes; other ranks wait, and find it done.
            with FileLock(folder / "lock"):
                self._decode(catalog, column, decode, title, reasons)
        self.present: NDArray[np.bool_] = np.asarray(self.states) == PRESENT
        found = _reasons(reasons)
        broken = np.flatnonzero(np.asarray(self.states) == BROKEN)
        self.broken = {int(item): found.get(int(item), "") for item in broken}

    def _decode(
        self, catalog: Catalog, column: str, decode: Decoder, title: str, reasons: Path
    ) -> None:
        def read(item: int) -> tuple[int, str]:
            try:
                path = catalog.media_path(item, column)
                if path is None:
                    return ABSENT, ""
                self.values[item] = decode(path)
            except BrokenFileError as error:
                return BROKEN, str(error)
            return PRESENT, ""

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for block in track(list(self._unread_blocks()), title):
                outcomes = list(readers.map(read, block.tolist()))
                lines = [
                    json.dumps([item, reason]) + "\n"
                    for item, (state, reason) in zip(block.tolist(), outcomes, strict=True)
                    if state == BROKEN
                ]
                with reasons.open("a", encoding="utf8") as file:
                    file.writelines(lines)
                self.values.flush()
                self.states[block] = [state for state, _ in outcomes]
                self.states.flush()
                signal_progress()

    def _unread_blocks(self) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(self.states), BLOCK):
            unread = start + np.flatnonzero(self.states[start : start + BLOCK] == UNREAD)
            if len(unread):
                yield unread


class MediaSource(Source):
    """A modality whose files were decoded into a cache."""

    def __init__(self, cache: MediaCache) -> None:
        super().__init__()
        self.cache = cache
        self.broken = cache.broken

    @override
    def release(self) -> None:
        release_pages(self.cache.values)


def _reasons(path: Path) -> dict[int, str]:
    """Item → why it is broken; a line that a full disk cut off is left out."""
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf8").splitlines() if path.exists() else []:
        try:
            item, reason = json.loads(line)
        except ValueError:
            continue
        found[int(item)] = str(reason)
    return found
