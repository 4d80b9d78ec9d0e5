"""Shows how many rows of a stream of batches have been read."""

import sys
import time
from collections.abc import Iterable, Iterator

import pyarrow as pa

from catalog.progress import SECONDS_BETWEEN_LINES, ProgressDisplay


def counted(
    batches: Iterable[pa.RecordBatch], title: str, total: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yields the batches; shows the rows read, and the time left where the `total` is known.

    Work that ends within seconds prints no line.
    """
    display = ProgressDisplay(title, total, transient=True) if total else None
    started = shown = time.monotonic()
    rows = 0
    try:
        for batch in batches:
            yield batch
            rows += batch.num_rows
            now = time.monotonic()
            late = now - started >= SECONDS_BETWEEN_LINES
            if display and display.is_due(rows) and (display.bar or late):
                display.show(rows)
            elif not display and now - shown >= SECONDS_BETWEEN_LINES:
                shown = now
                rate = rows / (now - started)
                line = f"{title}: {rows:,} rows · {rate:,.0f} a second"
                print(line, file=sys.stderr, flush=True)
    finally:
        if display:
            display.close()
