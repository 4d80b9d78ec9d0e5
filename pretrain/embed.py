"""A catalog to item vectors: `vitrine embed`, and what fine-tuning calls."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.progress import track

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog, load_catalog
from pretrain.artifact import open_encoder
from pretrain.config import EmbedConfig
from pretrain.content import ContentReader, to_device
from pretrain.encoder import ItemEncoder

VECTORS_FILE = "item_vectors.npy"
IDS_FILE = "item_ids.parquet"


@torch.no_grad()
def embed_items(
    encoder: ItemEncoder,
    reader: ContentReader,
    num_items: int,
    out: NDArray[np.float32],
    *,
    batch_size: int = 256,
    title: str = "Embedding items",
    progress: bool = True,
) -> None:
    """Writes every item's vector into `out`, float32 (num_items, width), a batch at a time."""
    was_training = encoder.training
    device = next(encoder.parameters()).device
    encoder.eval()
    starts: Iterable[int] = range(0, num_items, batch_size)
    for start in track(starts, title, transient=True, disable=not progress):
        items = np.arange(start, min(start + batch_size, num_items))
        batch = to_device(reader.read(items), device)
        out[items] = encoder(batch).item.float().cpu().numpy()
    encoder.train(was_training)


def create_vectors(folder: Path, num_items: int, width: int) -> NDArray[np.float32]:
    """A memory-mapped store to fill: float32 (num_items, width)."""
    return np.lib.format.open_memmap(
        folder / VECTORS_FILE, mode="w+", dtype=np.float32, shape=(num_items, width)
    )


def write_ids(folder: Path, catalog: Catalog) -> None:
    """The ids the rows of the store belong to, in the rows' order."""
    pq.write_table(pa.table({"item_id": catalog.items["item_id"][:]}), folder / IDS_FILE)


def run_embedding(config: EmbedConfig, output: Path) -> Path:
    """Writes a `vectors` artifact: the store and the ids of its rows."""
    catalog = load_catalog(config.catalog)
    encoder, parts = open_encoder(config.encoder)
    with write_artifact(
        output,
        kind="vectors",
        config=asdict(config),
        parents={"encoder": encoder.path},
        catalog=catalog.fingerprint,
    ) as staging:
        vectors = create_vectors(staging.path, catalog.num_items, parts.encoder.config.width)
        embed_items(
            parts.encoder,
            parts.reader(catalog),
            catalog.num_items,
            vectors,
            batch_size=config.batch_size,
        )
        write_ids(staging.path, catalog)
    return output
