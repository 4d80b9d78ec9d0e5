"""Decodes media files (images, video, audio) once, into one memory-mapped array.

Training reads every file many times at one size, and decoding is the slow part. A run that was stopped
resumes with the blocks of items that are not decoded yet.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import override

from catalog.cache import cache_folder
from catalog.cache_entries import keep_within_limit, mark_used
from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.memory import release_pages
from pretrain.block_store import BlockStore
from pretrain.modalities.base import Source

BLOCK = 256
"""Items decoded between two flushes."""
PENDING, MISSING, PRESENT, BROKEN = range(4)

Decoder = Callable[[str], NDArray[np.generic]]
"""A file's path → its array; raises BrokenFileError with the reason."""


class MediaCache:
    """The decoded files of one column: `values` (num_items, *shape), zero where an item has none."""

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
        """`name` identifies the column and how it is decoded: the same name, the same values."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]  # a column's name may be any text
        folder = cache_folder() / "media" / f"{catalog.content_fingerprint[:16]}-{digest}"
        store = BlockStore(folder, catalog.num_items, BLOCK)
        self.values = store.add_array("values", shape, dtype)
        self.states = store.add_array("states", (), np.uint8)
        reasons = folder / "broken.jsonl"

        def decode_item(item: int) -> tuple[int, str]:
            try:
                path = catalog.media_path(item, column)
                if path is None:
                    return MISSING, ""
                store.write_row("values", item, decode(path))
            except BrokenFileError as error:
                return BROKEN, str(error)
            return PRESENT, ""

        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        with ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) // processes))) as threads:

            def decode_block(items: NDArray[np.int64]) -> None:
                outcomes = list(threads.map(decode_item, items.tolist()))
                lines = [
                    json.dumps([item, reason]) + "\n"
                    for item, (state, reason) in zip(items.tolist(), outcomes, strict=True)
                    if state == BROKEN
                ]
                with reasons.open("a", encoding="utf8") as file:
                    file.writelines(lines)
                self.states[items] = [state for state, _ in outcomes]

            store.fill_together(decode_block, title, progress=os.environ.get("RANK", "0") == "0")
        mark_used(folder)
        keep_within_limit()
        self.present: NDArray[np.bool_] = np.asarray(self.states) == PRESENT
        by_item = _reasons(reasons)
        broken = np.flatnonzero(np.asarray(self.states) == BROKEN)
        self.broken = {int(item): by_item.get(int(item), "") for item in broken}


class MediaSource(Source):
    """A modality whose decoded files are in a `MediaCache`."""

    def __init__(self, cache: MediaCache) -> None:
        super().__init__()
        self.cache = cache
        self.broken = cache.broken

    @override
    def release(self) -> None:
        release_pages(self.cache.values)


def _reasons(path: Path) -> dict[int, str]:
    """Item → why its file is broken; a line that a full disk cut off is skipped."""
    by_item: dict[int, str] = {}
    for line in path.read_text(encoding="utf8").splitlines() if path.exists() else []:
        try:
            item, reason = json.loads(line)
        except ValueError:
            continue
        by_item[int(item)] = str(reason)
    return by_item
