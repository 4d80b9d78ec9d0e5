"""Cached frozen features: a frozen tower encodes each item once, and every step reads the cache.

A frozen tower gives the same features for an item in every step. So it runs over a catalog once, for all
runs on this machine that start from the same weights; a step then costs only what is trained.
"""

import hashlib
import json
from collections.abc import Container
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from catalog.cache import cache_folder
from catalog.cache_entries import mark_used
from catalog.catalog import Catalog
from pretrain.block_store import BlockStore
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.embed_items import BATCH_TOKENS, BLOCK, length_sorted_batches
from pretrain.encoder import ItemEncoder
from pretrain.eval_mode import eval_mode
from pretrain.modalities import Modality, Text
from pretrain.vector_file import open_vectors

VECTORS = "vectors"
"""The name of the vectors in the store."""


def frozen_towers(encoder: ItemEncoder, without_text: bool = False) -> list[str]:
    """The modalities whose towers have weights and train none of them; `without_text` leaves out text."""
    return [
        name
        for name, kind in encoder.kinds.items()
        if not (without_text and isinstance(kind, Text))
        and _is_frozen(encoder.towers[encoder.tower_name(name)])
    ]


def _is_frozen(tower: nn.Module) -> bool:
    weights = list(tower.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def cache_frozen_features(
    encoder: ItemEncoder,
    loader: ItemContentLoader,
    device: torch.device | None = None,
    *,
    only: Container[str] | None = None,
    without_text: bool = False,
    progress: bool = True,
) -> None:
    """Lets `loader` return cached features of frozen towers, which then are not run again.

    Each process calls it. One process at a time fills the cache, and resumes where another was stopped.
    `device` is where towers run meanwhile; `only`: these modalities alone; `without_text` where losses of
    single tokens need the tower.
    """
    for name in frozen_towers(encoder, without_text):
        if only is not None and name not in only:
            continue
        folder = cache_folder() / "towers" / _key(encoder, name, loader.catalog)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            _fill_cache(encoder, name, loader, folder, device, progress)
        mark_used(folder)
        loader.use_cached_features(name, open_vectors(folder / f"{VECTORS}.safetensors"))


def _key(encoder: ItemEncoder, name: str, catalog: Catalog) -> str:
    """The cache key of a tower: equal if the same weights encode the same content in the same way."""
    spec = json.dumps([catalog.content_fingerprint, encoder.kinds[name].spec], sort_keys=True)
    digest = hashlib.blake2b(spec.encode(), digest_size=12)
    weights = encoder.towers[encoder.tower_name(name)].state_dict()
    for path, weight in sorted(weights.items()):
        digest.update(path.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def _fill_cache(
    encoder: ItemEncoder,
    name: str,
    loader: ItemContentLoader,
    folder: Path,
    device: torch.device | None,
    progress: bool,
) -> None:
    """Runs the frozen tower of modality `name` over the items that are not in the cache yet."""
    modality: Modality = encoder.kinds[name]
    store = BlockStore(folder, loader.catalog.num_items, BLOCK)
    vectors = store.add_vectors(VECTORS, modality.width)
    if not store.is_complete:
        alone = loader.for_modality(name)

        def encode_block(items: NDArray[np.int64]) -> None:
            for batch in length_sorted_batches(alone, items, BATCH_TOKENS):
                content = to_device(alone.read(batch), encoder.device, encoder.dtype)
                present: NDArray[np.bool_] = content[name]["present"].cpu().numpy()
                if present.any():
                    vectors.write(batch[present], encoder.read(name, content).float().cpu().numpy())

        before = encoder.device
        encoder.to(device or before)  # pyright: ignore[reportArgumentType]
        with eval_mode(encoder):
            title = f"Caching features of the frozen {name} tower"
            store.fill(encode_block, title, progress=progress)
        encoder.to(before)  # pyright: ignore[reportArgumentType]
    store.close()
