"""What frozen towers say of every item: read once, kept on disk, and looked up in every step.

A tower that stands still says the same of an item each time it is asked. So it reads a catalog once,
for all runs on this machine that begin with the same weights; steps then cost what is trained.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from catalog.atomic_write import signal_progress
from catalog.cache import cache_folder
from catalog.catalog import Catalog
from catalog.progress import track
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.embed import BATCH_TOKENS, BLOCK, batches_of
from pretrain.encoder import ItemEncoder
from pretrain.modalities import Modality, Text
from pretrain.store import VectorWriter, open_vectors, shared_array

VECTORS = "vectors.safetensors"


def frozen_towers(encoder: ItemEncoder, without_text: bool = False) -> list[str]:
    """The modalities whose towers have weights of which none is trained; or of them those but text."""
    return [
        name
        for name, kind in encoder.kinds.items()
        if not (without_text and isinstance(kind, Text))
        and _is_frozen(encoder.towers[encoder.reads_through(name)])
    ]


def _is_frozen(tower: nn.Module) -> bool:
    weights = list(tower.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def cache_frozen_features(
    encoder: ItemEncoder,
    reader: ItemContentLoader,
    device: torch.device | None = None,
    *,
    without_text: bool = False,
    progress: bool = True,
) -> None:
    """From now on `reader` hands out what frozen towers say of items, and they are not run again.

    Each process calls it; one at a time reads what is missing, and one that was stopped is gone on
    from. `device` is where towers run meanwhile; `without_text` where each token is to be told.
    """
    for name in frozen_towers(encoder, without_text):
        folder = cache_folder() / "towers" / _key(encoder, name, reader.catalog)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            _read_missing(encoder, name, reader, folder, device, progress)
        reader.use_cached_features(name, open_vectors(folder / VECTORS))


def _key(encoder: ItemEncoder, name: str, catalog: Catalog) -> str:
    """Equal where the same weights read the same content in the same way."""
    about = json.dumps([catalog.content_fingerprint, encoder.kinds[name].about], sort_keys=True)
    digest = hashlib.blake2b(about.encode(), digest_size=12)
    weights = encoder.towers[encoder.reads_through(name)].state_dict()
    for path, weight in sorted(weights.items()):
        digest.update(path.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def _read_missing(
    encoder: ItemEncoder,
    name: str,
    reader: ItemContentLoader,
    folder: Path,
    device: torch.device | None,
    progress: bool,
) -> None:
    kind: Modality = encoder.kinds[name]
    num_items = reader.catalog.num_items
    store = VectorWriter(folder / VECTORS, num_items, kind.width)
    done = shared_array(folder / "done.npy", (-(-num_items // BLOCK),), np.uint8)
    if store.is_new:
        done[:] = 0
    missing = np.flatnonzero(done == 0).tolist()
    if missing:
        before, training = encoder.device, encoder.training
        encoder.to(device or before)  # pyright: ignore[reportArgumentType]
        encoder.eval()
        alone = reader.for_modality(name)
        title = f"Reading {name} once through its frozen tower"
        for block in track(missing, title, shown=progress):
            items = np.arange(block * BLOCK, min((block + 1) * BLOCK, num_items), dtype=np.int64)
            for batch in batches_of(alone, items, BATCH_TOKENS):
                content = to_device(alone.read(batch), encoder.device, encoder.dtype)
                has_it: NDArray[np.bool_] = content[name]["present"].cpu().numpy()
                if has_it.any():
                    store.write(batch[has_it], encoder.read(name, content).float().cpu().numpy())
            store.flush()
            done[block] = 1
            done.flush()
            signal_progress()
        encoder.to(before)  # pyright: ignore[reportArgumentType]
        encoder.train(training)
    store.close()
