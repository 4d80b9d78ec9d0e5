"""Large shops: import, conversion, opening and splitting, at two sizes, one twice as large as the other.

python -m benchmarks.data_scale                    # about 5 minutes on two cores
python -m benchmarks.data_scale --rows 100000000   # 10 million items; an hour, 40 GB of disk
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from benchmarks.record import RESULTS, write_record
from catalog.cache import cache_folder
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.doctor.run import check_catalog
from catalog.importing.config import ImportConfig
from catalog.importing.run import run_import
from catalog.importing.write import INTERACTIONS
from catalog.splits import load_split

ROWS = 2_000_000
ROWS_PER_ITEM, ROWS_PER_USER = 10, 20
BATCH = 1_000_000
MIB, MIB_ALLOWED = 1024, 2048
STEPS = ("import", "convert", "open", "split", "check", "more")
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
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        for name, rows in (("half", arguments.rows // 2), ("whole", arguments.rows)):
            shop = Path(folder) / name
            write_shop(shop, rows, arguments.format)
            for key, value in measure(shop, rows).items():
                figures[f"{name}_{key}"] = value
            shutil.rmtree(shop)
            print({key: value for key, value in figures.items() if key.startswith(name)})
    speeds = figures["half_rows_per_second"], figures["whole_rows_per_second"]
    figures["seconds_per_row_ratio"] = speeds[0] / speeds[1]
    write_record(
        "data-scale",
        claim="A large shop is imported, checked and split in 2 GiB of memory, in a time that grows as it "
        "does; its converted catalog opens at once, and more interactions read no item again.",
        command=f"python -m benchmarks.data_scale --rows {arguments.rows}",
        seeds=[0],
        figures={**figures, "format": arguments.format},
        goal=[
            "rows >= 100000000",
            *(f"whole_{step}_peak_mib <= {MIB_ALLOWED}" for step in STEPS),
            "seconds_per_row_ratio <= 1.1",
            "whole_unaccounted_rows == 0",
            "half_unaccounted_rows == 0",
            "whole_open_seconds <= 2",
            "whole_more_items_converted == 0",
        ],
        sources=[
            "catalog/conversion/*.py",
            "catalog/doctor/*.py",
            "catalog/file_hashes.py",
            "catalog/fingerprint.py",
            "catalog/importing/*.py",
            "catalog/reading/*.py",
            "catalog/cut_times.py",
            "catalog/interactions.py",
            "catalog/splits.py",
        ],
        note=f"One item for {ROWS_PER_ITEM} interactions and one user for {ROWS_PER_USER}, popularity "
        "as a power law; ids, dates and ratings are text, no pictures. Each step runs in a fresh process; "
        "peak: its highest resident memory, mapped files included. import: with the filters "
        f"{RULES}. convert: the imported folder, opened for the first time. open: again, without the time "
        "of Python's imports. more: with one interaction in a hundred added, of new users; "
        "items_converted: whether the items' part of the cache was written again. split: temporal.",
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
    """What each step takes on one shop: seconds, peak memory, and rows that are not accounted for."""
    target = Path(f"{shop}-imported")
    counts, seconds, figures = run_step("import", f"run({str(shop)!r}, {str(target)!r})")
    read, written, dropped = counts
    figures |= {
        "rows_per_second": round(rows / seconds),
        "written_rows": written,
        "unaccounted_rows": abs(rows - read) + abs(read - written - dropped),
    }
    opening = f"opened({str(target)!r})"
    for step in ("convert", "open"):
        (figures[f"{step}_seconds"],), _, more = run_step(step, opening)
        figures |= more
    for step in ("split", "check"):
        (figures[f"{step}_seconds"],), _, more = run_step(step, f"{step}({str(target)!r})")
        figures |= more
    before = {path: path.stat().st_mtime_ns for path in items_parts()}
    add_interactions(target)
    (figures["more_seconds"],), _, more = run_step("more", opening)
    after = {path: path.stat().st_mtime_ns for path in items_parts()}
    shutil.rmtree(target)
    return figures | more | {"more_items_converted": len(after.items() - before.items())}


def run_step(name: str, call: str) -> tuple[list[float], float, dict[str, float]]:
    """Calls a function of this module in a fresh process: what it prints, seconds, CPU and peak memory."""
    code = f"from benchmarks.data_scale import *\n{call}\nprint(peak_mib())"
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{name} failed"
    seconds = time.perf_counter() - started
    *printed, peak = (float(value) for value in output.split())
    cpu_seconds = round(usage.ru_utime + usage.ru_stime, 1)
    return printed, seconds, {f"{name}_cpu_seconds": cpu_seconds, f"{name}_peak_mib": peak}


def peak_mib() -> int:
    """Highest resident memory of this process; `getrusage` would count that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / MIB)


def run(shop: str, target: str) -> None:
    counts = run_import(ImportConfig(shop, **RULES), Path(target)).counts["interactions"]
    print(counts["read"], counts["written"], sum(counts["dropped"].values()))


def opened(target: str) -> None:
    started = time.perf_counter()
    load_catalog(CatalogConfig(target))
    print(round(time.perf_counter() - started, 3))


def split(target: str) -> None:
    started = time.perf_counter()
    load_split(CatalogConfig(target), SplitConfig())
    print(round(time.perf_counter() - started, 3))


def check(target: str) -> None:
    started = time.perf_counter()
    check_catalog(CatalogConfig(target))
    print(round(time.perf_counter() - started, 3))


def items_parts() -> list[Path]:
    return sorted((cache_folder() / "catalogs").glob("items-*/items.arrow"))


def add_interactions(target: Path) -> None:
    """Adds one interaction in a hundred to an imported folder, of new users, at its end."""
    path = target / INTERACTIONS
    file = parquet.ParquetFile(path)
    partial = path.with_suffix(".partial")
    with parquet.ParquetWriter(partial, file.schema_arrow, compression="zstd") as writer:
        for batch in file.iter_batches(BATCH):
            writer.write_batch(batch)
        table = next(file.iter_batches(max(1, file.metadata.num_rows // 100)))
        new, join = pa.scalar("new", pa.large_string()), pa.scalar("-", pa.large_string())
        users = pc.binary_join_element_wise(new, table.column("user_id"), join)
        place = table.schema.names.index("user_id")
        writer.write_batch(table.set_column(place, table.schema.field(place), users))
    partial.replace(path)


if __name__ == "__main__":
    main()
