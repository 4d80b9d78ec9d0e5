"""Precomputed features, such as CLIP vectors: a file in the catalog's folder, aligned by item id."""

# pyright: reportAttributeAccessIssue=false
# pyarrow defines the functions of its compute module at import, where type checkers do not see them.

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from catalog.atomic_write import replace_file
from catalog.cache import cache_folder
from catalog.cache_entries import mark_used
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.memory import release_pages
from catalog.progress import track
from pretrain import vector_file
from pretrain.config import ModalityConfig
from pretrain.hub import one_line_errors
from pretrain.modalities.base import Modality, Processor, Source, mask_of, present_rows

FORMATS = ".npy, .parquet, .safetensors, or a folder that `vitrine embed` wrote"
BLOCK = 65_536
"""Vectors checked, or copied, at once."""


class VectorSource(Source):
    def __init__(self, vectors: NDArray[np.floating], rows: NDArray[np.int64]) -> None:
        """`rows` int64 (num_items,): the row of each item in `vectors`, -1 for none."""
        super().__init__()
        self.vectors = vectors
        self.rows = rows
        for item in _not_finite(vectors, rows):
            self.broken[int(item)] = "the vector is not finite"
            self.rows[item] = -1

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.rows[items] >= 0
        rows = np.maximum(self.rows[present_rows(present, items)], 0)
        order = np.argsort(rows)  # the file is read forwards
        values = np.empty((len(rows), self.vectors.shape[1]), dtype=np.float32)
        values[order] = self.vectors[rows[order]]
        if not present.any():
            values[:] = 0
        return {"present": mask_of(present), "values": torch.from_numpy(values)}

    @override
    def release(self) -> None:
        release_pages(self.vectors)


class MissingFileSource(Source):
    """The source for a catalog without the feature file: no item has a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        return {
            "present": torch.zeros(len(items), dtype=torch.bool),
            "values": torch.zeros(1, self.width),
        }


class Features(Modality):
    kind = "features"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Features", None]:
        path = _place(catalog, settings.source)
        if not settings.source or not path.exists():
            raise VitrineError(
                f"features are read from {path}, which is not there; set source to a file in the "
                f"catalog's folder: {FORMATS}"
            )
        vectors, _ = open_vectors(path)
        spec = {"kind": "features", "source": settings.source, "width": int(vectors.shape[1])}
        return cls(spec), None

    def build_tower(self, pretrained: str = "") -> nn.Module:
        return nn.LayerNorm(self.width)

    @property
    def width(self) -> int:
        return self.spec["width"]

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return tower(inputs["values"])

    def open(self, catalog: Catalog, processor: Processor | None) -> Source:
        path = _place(catalog, self.spec["source"])
        if not path.exists():
            return MissingFileSource(self.width)
        vectors, ids = open_vectors(path)
        if vectors.shape[1] != self.width:
            raise VitrineError(
                f"{path} holds vectors of width {vectors.shape[1]}, but the encoder was made for "
                f"{self.width}; give vectors of the same extractor"
            )
        return VectorSource(vectors, align(path, ids, catalog))


def _place(catalog: Catalog, source: str) -> Path:
    """Path of the file or folder `source`; VitrineError if it lies outside the catalog's folder."""
    folder = catalog.folder.resolve()
    path = (folder / source).resolve()
    if not path.is_relative_to(folder):
        raise VitrineError(
            f"features are read from {source}, which lies outside {folder}; put the file there"
        )
    return path


def open_vectors(path: Path) -> tuple[NDArray[np.floating], pa.Array]:
    """Vectors (m, width), memory-mapped, and the ids of their rows; VitrineError if they do not match."""
    with one_line_errors(f"{path} holds no vectors that can be read", f"give {FORMATS}"):
        return _open_vectors(path)


def _open_vectors(path: Path) -> tuple[NDArray[np.floating], pa.Array]:
    if path.is_dir():
        vectors = vector_file.open_vectors(path / "item_vectors.safetensors")
        ids = pq.read_table(path / "item_ids.parquet")["item_id"].combine_chunks()
    elif path.suffix == ".parquet":
        return _from_parquet(path)
    elif path.suffix == ".npy":
        vectors, ids = _mapped(path), _ids_beside(path)
    elif path.suffix == ".safetensors":
        vectors, ids = vector_file.open_vectors(path), _ids_beside(path)
    else:
        raise VitrineError(f"{path} is none of {FORMATS}")
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise VitrineError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}; expected numbers with a "
            "fractional part, one row an item"
        )
    if len(ids) != len(vectors):
        raise VitrineError(f"{path} holds {len(vectors)} vectors, but there are {len(ids)} ids")
    return vectors, ids


def align(path: Path, ids: pa.Array, catalog: Catalog) -> NDArray[np.int64]:
    """The row of each item's vector, matched by id: int64 (num_items,), -1 for none."""
    ids = ids.cast(pa.large_string())
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(twice):
        raise VitrineError(f"{path} names {len(twice)} ids more than once, such as {twice[0]}")
    item_ids = catalog.items.data.column("item_id").cast(pa.large_string())
    positions = pc.index_in(item_ids, value_set=ids)
    rows = positions.fill_null(-1).to_numpy().astype(np.int64)
    if not (rows >= 0).any():
        raise VitrineError(
            f"{path} has a vector for none of the {catalog.num_items} items of {catalog.name}: its "
            f"ids are like {ids[0]}, the catalog's like {item_ids[0]}"
        )
    return rows


def _not_finite(vectors: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Items whose vector contains nan or infinity."""
    bad = np.zeros(len(vectors), dtype=bool)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        bad[start : start + BLOCK] = ~np.isfinite(part).all(axis=1)
    return np.flatnonzero((rows >= 0) & bad[np.maximum(rows, 0)])


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")  # arrays of numbers, not archives
    except (OSError, ValueError) as error:
        raise VitrineError(f"{path} is no array that can be read: {error}") from error


def _ids_beside(path: Path) -> pa.Array:
    """Ids of the rows of an array file: those of `clip.npy` are in `clip.ids.txt`, one per line."""
    ids_file = path.with_suffix(".ids.txt")
    if not ids_file.exists():
        raise VitrineError(
            f"{path} says nothing about whose vectors it holds; write the ids of its rows into "
            f"{ids_file.name} beside it, one a line"
        )
    return pa.array(ids_file.read_text(encoding="utf8").splitlines(), pa.large_string())


def _from_parquet(path: Path) -> tuple[NDArray[np.floating], pa.Array]:
    """Vectors and ids of a parquet file with the columns `item_id` and one of lists.

    The lists are copied once to a memory-mapped array.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise VitrineError(f"{path} is no parquet file that can be read: {error}") from error
    schema = file.schema_arrow
    lists = [
        field.name
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
        or pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
    ]
    if "item_id" not in schema.names or len(lists) != 1:
        raise VitrineError(
            f"{path} has the columns {', '.join(schema.names)}; expected item_id and one of lists, "
            "the vectors"
        )
    ids = pq.read_table(path, columns=["item_id"])["item_id"].combine_chunks()
    state = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    copy = cache_folder() / "features" / f"{key.hexdigest()[:24]}.npy"
    if not copy.exists():
        _copy_lists(file, lists[0], copy, path)
    mark_used(copy)
    return _mapped(copy), ids


def _copy_lists(file: pq.ParquetFile, column: str, copy: Path, path: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_suffix(f".{os.getpid()}.partial")
    out: NDArray[np.float32] | None = None
    done = 0
    groups = range(file.num_row_groups)
    batches = (
        batch
        for group in track(groups, f"Reading {path.name}")
        for batch in file.iter_batches(BLOCK, row_groups=[group], columns=[column])
    )
    for batch in batches:
        values = batch.column(0)
        widths = np.unique(np.asarray(pc.list_value_length(values)))
        if len(widths) != 1 or not float(widths[0]) > 0:
            raise VitrineError(f"{path} has vectors of several widths, or none; give all the same")
        block = np.asarray(values.flatten(), dtype=np.float32).reshape(len(values), -1)
        if out is None:
            shape = (file.metadata.num_rows, block.shape[1])
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        if block.shape[1] != out.shape[1]:
            raise VitrineError(f"{path} has vectors of several widths; give all the same")
        out[done : done + len(block)] = block
        done += len(block)
    if out is None:
        raise VitrineError(f"{path} holds no vectors")
    out.flush()
    replace_file(partial, copy)
