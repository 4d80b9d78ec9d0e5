"""Reuse of earlier embeddings: only items whose content changed go through the towers again."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.artifacts import artifact_hash, open_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.config import EmbedConfig
from pretrain.modalities.features import align
from pretrain.vector_file import VectorWriter, open_vectors
from pretrain.vectors_artifact import HASHES_FILE, IDS_FILE


class PreviousEmbeddings:
    """The vectors that the same encoder left in an output folder; those of unchanged items are copied."""

    def __init__(
        self,
        rows: NDArray[np.int64] | None = None,
        hashes: NDArray[np.uint64] | None = None,
        stores: dict[str, NDArray[np.floating]] | None = None,
        present: dict[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """`rows` int64 (num_items,): each item's row in the earlier artifact, -1 for a new item."""
        self.rows = rows
        self.hashes = hashes
        self.stores = stores or {}
        self.present = present or {}

    @classmethod
    def open(cls, folder: Path, config: EmbedConfig, catalog: Catalog) -> "PreviousEmbeddings":
        """The vectors in `folder` if they are of the same encoder and extractors; otherwise empty."""
        if not (folder / "manifest.json").exists():
            return cls()
        try:
            artifact = open_artifact(folder, kind="vectors")
            made_by = artifact.manifest["parents"].get("encoder", {}).get("hash")
            encoder = artifact_hash(config.encoder) if config.encoder else None
            extract = json.loads(json.dumps(asdict(config)["extract"]))
            if made_by != encoder or artifact.manifest["config"].get("extract") != extract:
                return cls()
            ids = pq.read_table(folder / IDS_FILE)
            rows = align(folder, ids["item_id"].combine_chunks(), catalog)
        except VitrineError:  # damaged, of an older format, or of other items: embedded anew
            return cls()
        stores = {path.stem: open_vectors(path) for path in folder.glob("*.safetensors")}
        present = {
            name.removeprefix("has_"): ids[name].to_numpy()
            for name in ids.column_names
            if name.startswith("has_")
        }
        return cls(rows, np.load(folder / HASHES_FILE, mmap_mode="r"), stores, present)

    def copy(
        self,
        items: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        stores: dict[str, VectorWriter],
        present: dict[str, np.memmap],
    ) -> NDArray[np.bool_]:
        """Copies the vectors of unchanged items; returns bool (n,), true for those that were copied."""
        if self.rows is None or self.hashes is None:
            return np.zeros(len(items), dtype=bool)
        rows = self.rows[items]
        same = (rows >= 0) & (self.hashes[np.maximum(rows, 0)] == hashes).all(axis=1)
        if same.any():
            for name, store in stores.items():
                store.write(items[same], np.asarray(self.stores[name][rows[same]]))
            for name, mask in present.items():
                mask[items[same]] = self.present[name][rows[same]]
        return same
