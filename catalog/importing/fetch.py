"""Gives the fetcher the web addresses of pictures that an import writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.columns import first_text
from catalog.errors import VitrineError
from catalog.fetching.run import Fetcher
from catalog.importing.config import ImportConfig
from catalog.importing.streams import Streams
from catalog.notes import Notes
from catalog.values.paths import split_addresses

RUNTIME_ONLY_SETTINGS = {
    *("concurrency", "per_host", "delay", "timeout", "deadline", "retries", "max_wait"),
}
"""Settings of fetching that say how, and not what."""
PIECE = 1 << 14
"""Rows whose addresses are Python objects at once."""


def fetched_folder(output: Path) -> Path:
    """The folder of fetched pictures and their log, which later imports into `output` use again."""
    return output.with_name(f"{output.name}.fetched")


@contextmanager
def open_fetcher(config: ImportConfig, output: Path) -> Iterator[Fetcher | None]:
    """The fetcher of an import that fetches pictures, else None."""
    if not config.fetch_images:
        yield None
        return
    fetcher = Fetcher(fetched_folder(output), config.fetch)
    try:
        yield fetcher
    finally:
        fetcher.close()


def fetch_pictures(
    streams: Streams, column: str, written: NDArray[np.bool_], fetcher: Fetcher, notes: Notes
) -> dict[str, Any]:
    """Fetches the pictures of the rows that are `written` (n,); returns how many addresses gave one.

    The counts are {read, dropped: {reason: addresses}, written}.
    """
    where = f"items: {column}"
    start = 0
    for batch in streams.items():
        mask = pa.array(written[start : start + batch.num_rows])
        start += batch.num_rows
        values = pa.chunked_array([batch.column(batch.schema.names.index(column)).filter(mask)])
        try:
            texts = first_text(values, column)
        except VitrineError:  # a column without text form names no picture
            break
        for piece in range(0, len(texts), PIECE):
            paths, addresses = split_addresses(texts.slice(piece, PIECE), where, Notes())
            fetcher.want(paths.filter(addresses).to_pylist())
    fetcher.fetch()
    fetcher.add_notes(where, notes)
    return fetcher.counts()
