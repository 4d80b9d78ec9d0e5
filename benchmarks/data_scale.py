"""Import of large shops: rows a second and peak memory at two sizes, one twice as large as the other.

python -m benchmarks.data_scale                    # about 3 minutes on two cores
python -m benchmarks.data_scale --rows 100000000   # 10 million items; some hours, 30 GB of disk
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks.record import RESULTS, write_record

ROWS = 2_000_000
ROWS_PER_ITEM, ROWS_PER_USER = 10, 20
BATCH = 1_000_000
MIB = 1024
SECONDS_OF_10_YEARS = 315_000_000
RULES = {"min_user_interactions": 5, "min_item_interactions": 3, "min_rating": 2.0}
"""Filters of every import: they read all columns and repeat until nothing changes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="interactions of the larger shop")
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--folder", type=Path, help="where the shops are written (a temporary one)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    arguments = parser.parse_args()
    figures: dict[str, float] = {"rows": arguments.rows}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, rows in (("half", arguments.rows // 2), ("whole", arguments.rows)):
            shop = Path(folder) / name
            write_shop(shop, rows, arguments.format)
            for key, value in measure(shop, rows).items():
                figures[f"{name}_{key}"] = value
            print({key: value for key, value in figures.items() if key.startswith(name)})
    speeds = figures["half_rows_per_second"], figures["whole_rows_per_second"]
    figures["seconds_per_row_ratio"] = speeds[0] / speeds[1]
    figures["peak_growth_mib"] = figures["whole_peak_mib"] - figures["half_peak_mib"]
    write_record(
        "data-scale",
        claim="An import's memory does not grow with the interactions, and its time grows as they do.",
        command="python -m benchmarks.data_scale",
        seeds=[0],
        figures={**figures, "format": arguments.format},
        goal=[
            "whole_peak_mib <= 2048",
            "seconds_per_row_ratio <= 1.3",
            "whole_unaccounted_rows == 0",
            "half_unaccounted_rows == 0",
        ],
        sources=["catalog/importing/*.py", "catalog/reading/*.py"],
        note=f"One item for {ROWS_PER_ITEM} interactions and one user for {ROWS_PER_USER}, popularity "
        "as a power law; ids, dates and ratings are text. Peak: highest resident memory of a fresh "
        f"process that imports with {RULES}.",
        folder=arguments.output,
    )


def write_shop(folder: Path, rows: int, form: str) -> None:
    """Writes a shop of so many interactions, batch by batch."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    num_items, num_users = max(10, rows // ROWS_PER_ITEM), max(10, rows // ROWS_PER_USER)
    _write(
        folder, "items", form, (_items(start, num_items) for start in range(0, num_items, BATCH))
    )
    sizes = [min(BATCH, rows - start) for start in range(0, rows, BATCH)]
    batches = (_interactions(draw, size, num_items, num_users) for size in sizes)
    _write(folder, "interactions", form, batches)


def _items(start: int, num_items: int) -> pa.Table:
    numbers = np.arange(start, min(start + BATCH, num_items))
    texts = numbers.astype(str)
    return pa.table(
        {
            "item_id": np.char.add("i", texts),
            "title": np.char.add("Thing number ", texts),
            "description": np.char.add("A thing of the usual kind, with the number ", texts),
            "category": np.char.add("kind ", (numbers % 100).astype(str)),
            "price": np.char.add((numbers % 900).astype(str), ".50"),
        }
    )


def _interactions(draw: np.random.Generator, size: int, num_items: int, num_users: int) -> pa.Table:
    items = (num_items * draw.random(size) ** 2).astype(np.int64)
    users = (num_users * draw.random(size) ** 1.5).astype(np.int64)
    seconds = 1_400_000_000 + draw.integers(0, SECONDS_OF_10_YEARS, size)
    dates = np.char.replace(seconds.astype("datetime64[s]").astype(str), "T", " ")
    return pa.table(
        {
            "user_id": np.char.add("u", users.astype(str)),
            "item_id": np.char.add("i", items.astype(str)),
            "date": dates,
            "rating": draw.integers(1, 6, size).astype(str),
        }
    )


def _write(folder: Path, name: str, form: str, tables: Iterable[pa.Table]) -> None:
    path = folder / f"{name}.{form}"
    writer: csv.CSVWriter | parquet.ParquetWriter | None = None
    for table in tables:
        if writer is None:
            kind = csv.CSVWriter if form == "csv" else parquet.ParquetWriter
            writer = kind(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measure(shop: Path, rows: int) -> dict[str, float]:
    """Imports a shop in a fresh process: rows a second, its peak memory, and rows not accounted for."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from catalog.importing.config import ImportConfig\n"
        "from catalog.importing.run import run_import\n"
        f"done = run_import(ImportConfig({str(shop)!r}, **{RULES!r}), Path({str(shop) + '-imported'!r}))\n"
        "counts = done.counts['interactions']\n"
        "print(counts['read'], counts['written'], sum(counts['dropped'].values()))\n"
    )
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds = time.perf_counter() - started
    read, written, dropped = map(int, output.split())
    return {
        "rows_per_second": round(rows / seconds),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / MIB),
        "written_rows": written,
        "unaccounted_rows": abs(rows - read) + abs(read - written - dropped),
    }


if __name__ == "__main__":
    main()
