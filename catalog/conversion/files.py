"""The files of a converted catalog, written part by part and opened memory-mapped."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.conversion.interactions import Histories
from catalog.interactions import Interactions
from catalog.item_texts import TextColumn

ROWS_PER_BATCH = 65_536
"""Rows of a batch in Arrow files."""


class ArrayFile:
    """An array of one dimension that grows on disk, as numpy.save would write it."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.file = path.open("wb")
        self.dtype = np.dtype(dtype)
        self.rows = 0
        self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        self.file.write(np.ascontiguousarray(values, self.dtype).data)
        self.rows += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._write_header()  # as long as before: numpy leaves space for the number of rows
        self.file.close()

    def _write_header(self) -> None:
        described = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": described, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self.file, header)


class TableFile:
    """A table that grows on disk, in the format of Arrow streams."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pa.RecordBatchStreamWriter | None = None

    def append(self, table: pa.Table) -> None:
        if self.writer is None:
            self.writer = pa.ipc.new_stream(str(self.path), table.schema)
        self.writer.write_table(table.combine_chunks(), max_chunksize=ROWS_PER_BATCH)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class HistoryFiles:
    """The histories of a catalog's users, written user by user; `open_histories` opens them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: list[pa.Array] = []
        self.num_users = self.num_rows = 0
        self.arrays: dict[str, ArrayFile] = {"offsets": ArrayFile(folder / "offsets.npy", np.int64)}
        self.arrays["offsets"].append(np.zeros(1, np.int64))
        self.tables: dict[str, TableFile] = {}

    def __enter__(self) -> "HistoryFiles":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (*self.arrays.values(), *self.tables.values()):
            file.close()
        if kind is None:
            self._write_users()

    def append(self, histories: Histories) -> None:
        """Adds users that were not added before."""
        self.users.append(histories.user_ids)
        self.num_users += len(histories.user_ids)
        self.arrays["offsets"].append(self.num_rows + np.cumsum(histories.counts))
        self.num_rows += len(histories.item_rows)
        for name, values in (
            ("items", histories.item_rows),
            ("times", histories.times),
            ("ratings", histories.ratings),
        ):
            if values is not None:
                if name not in self.arrays:
                    self.arrays[name] = ArrayFile(self.folder / f"{name}.npy", values.dtype)
                self.arrays[name].append(values)
        for name, column in (("review", histories.reviews), ("split", histories.split_labels)):
            if column is not None:
                if name not in self.tables:
                    self.tables[name] = TableFile(self.folder / f"{name}.arrow")
                self.tables[name].append(pa.table({name: column}))

    def _write_users(self) -> None:
        """Writes the ids as text of one width, never all of them as objects."""
        width = max(1, *(pc.max(pc.utf8_length(part)).as_py() or 0 for part in self.users))
        path = self.folder / "user_ids.npy"
        written = np.lib.format.open_memmap(path, "w+", f"<U{width}", (self.num_users,))
        start = 0
        for users in self.users:
            for first in range(0, len(users), ROWS_PER_BATCH):
                part = users.slice(first, ROWS_PER_BATCH).to_numpy(zero_copy_only=False)
                written[start : start + len(part)] = part.astype(np.str_)
                start += len(part)
        written.flush()


def open_histories(folder: Path) -> dict[str, Any]:
    """user_ids, interactions and edges of a catalog."""
    reviews, split_labels = folder / "review.arrow", folder / "split.arrow"
    interactions = Interactions(
        offsets=open_array(folder / "offsets.npy"),
        items=open_array(folder / "items.npy"),
        times=open_array(folder / "times.npy"),
        reviews=TextColumn(open_table(reviews)["review"]) if reviews.exists() else None,
        ratings=_open_optional_array(folder / "ratings.npy"),
        split_labels=open_table(split_labels)["split"] if split_labels.exists() else None,
    )
    return {
        "user_ids": open_array(folder / "user_ids.npy"),
        "interactions": interactions,
        "edges": _open_optional_array(folder / "edges.npy"),
    }


def open_table(path: Path) -> pa.Table:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def open_array(path: Path) -> NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _open_optional_array(path: Path) -> NDArray[Any] | None:
    return open_array(path) if path.exists() else None
