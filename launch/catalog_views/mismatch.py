"""Scores how well each item's image and text fit each other, by a pretrained encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.artifact import open_encoder
from pretrain.devices import choose_compute
from pretrain.embed_items import embed_items
from pretrain.encoder import ItemVectors

COMPARED = 1000
"""Items whose images and texts each item's own are compared with."""
CHUNK = 64


def mismatch_shares(catalog: Catalog, folder: Path) -> NDArray[np.float32]:
    """Of other items' images, and of their texts, the share that fits better than the item's own; the
    smaller of both: float32 (num_items,), NaN for an item without image or text.

    Raises VitrineError where the encoder reads not both a text and an image.
    """
    _, bundle = open_encoder(folder)
    encoder = bundle.encoder.eval()
    names = list(encoder.modalities)
    if not {"text", "image"} <= set(names):
        raise VitrineError(
            f"{folder} encodes {', '.join(names)}; give an encoder of text and image, or leave "
            "--encoder out."
        )
    sides = [names.index("text"), names.index("image")]
    choose_compute().place(encoder)
    loader = bundle.content_loader(catalog)
    vectors: Any = np.empty((catalog.num_items, 2, encoder.config.width), np.float16)

    def both_sides(encoded: ItemVectors) -> torch.Tensor:
        return encoded.projected_embeddings[:, sides]

    embed_items(encoder, loader, vectors, of=both_sides, title="Encoding items")
    present = vectors.any(axis=2).all(axis=1)  # zero where one is missing
    return shares_of(torch.from_numpy(vectors), present)


def shares_of(vectors: torch.Tensor, both: NDArray[np.bool_]) -> NDArray[np.float32]:
    """`mismatch_shares` of unit vectors (num_items, 2, d) of text and image; both (num_items,)."""
    shares = np.full(len(vectors), np.nan, np.float32)
    rows = np.flatnonzero(both)
    if len(rows) < 2:
        return shares
    drawn = np.random.default_rng(0).permutation(rows)[:COMPARED]
    others = vectors[drawn].float()
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        own = vectors[some].float()
        fit = (own[:, 0] * own[:, 1]).sum(dim=1, keepdim=True)
        better = [
            (own[:, side] @ others[:, 1 - side].T > fit + 1e-6).float().mean(dim=1)
            for side in (0, 1)
        ]
        shares[some] = torch.minimum(*better).numpy()
    return shares
