"""The files of a `vectors` artifact: item vectors, the item ids of their rows, and content hashes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from pretrain.modalities import Content
from pretrain.vector_file import open_vectors

VECTORS_FILE = "item_vectors.safetensors"
IDS_FILE = "item_ids.parquet"
HASHES_FILE = "content_hashes.npy"
ID_ROWS = 8192
"""Rows per row group of the file of ids."""


def write_ids(
    folder: Path, catalog: Catalog, present: dict[str, NDArray[np.bool_]] | None = None
) -> None:
    """Writes the item ids of the vectors' rows; `present`: for each extractor, which items have a vector."""
    columns = {"item_id": catalog.items.data.column("item_id")}
    for name, mask in (present or {}).items():
        columns[f"has_{name}"] = pa.chunked_array([pa.array(mask)])
    pq.write_table(pa.table(columns), folder / IDS_FILE, row_group_size=ID_ROWS)


def content_hashes(content: Content) -> NDArray[np.uint64]:
    """uint64 (n, 2): a digest of each item's inputs, equal where two items' inputs are equal.

    Values are read in the order in which they lie in memory, so that pixels need not be copied.
    """
    num_items = len(next(iter(content.values()))["present"])
    digests = [xxhash.xxh3_128() for _ in range(num_items)]
    for name, inputs in content.items():
        values = [as_it_lies(value.numpy()) for key, value in inputs.items() if key != "present"]
        mask = inputs.get("attention_mask")
        lengths = None if mask is None else mask.sum(dim=1).tolist()
        for row, item in enumerate(np.flatnonzero(inputs["present"].numpy())):
            digests[item].update(name.encode())
            for value in values:
                part = value[row, : lengths[row]] if lengths else value[row]
                digests[item].update(np.ascontiguousarray(part).data)
    raw = b"".join(digest.digest() for digest in digests)
    return np.frombuffer(raw, dtype="<u8").reshape(num_items, 2)


def as_it_lies(values: NDArray) -> NDArray:
    """`values` (n, …) with the axes after the first in the order of memory."""
    order = sorted(range(1, values.ndim), key=lambda axis: -values.strides[axis])
    return values.transpose(0, *order)


def load_item_vectors(
    folder: str | Path, encoder: Artifact, catalog: Catalog
) -> NDArray[np.float32]:
    """The item vectors of a `vectors` artifact, (num_items, width), memory-mapped.

    Raises VitrineError where they come from another encoder or another catalog.
    """
    artifact = open_artifact(Path(folder), kind="vectors")
    made_by = artifact.manifest["parents"].get("encoder", {}).get("hash")
    if made_by != encoder.hash or artifact.manifest["catalog"] != catalog.fingerprint:
        other = "another catalog" if made_by == encoder.hash else "another encoder"
        raise VitrineError(
            f"the vectors {folder} were made with {other} than {encoder.path} and {catalog.folder}; "
            "make them again with vitrine embed"
        )
    return open_vectors(artifact.path / VECTORS_FILE)


def check_vectors(vectors: NDArray[np.floating], catalog: Catalog, folder: str | Path) -> None:
    """Raises NonFiniteError where one of the `vectors` (num_items, width) of `folder` is not finite."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"the vectors {folder} hold nan or infinity for {len(bad):,} items, first for "
            f"{catalog.items[int(bad[0])]['item_id']!r}; make them again with vitrine embed"
        )
