"""Every picture of a catalog as latents: decoded and encoded once, then read from disk."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.progress import track
from generate.image.codec import PatchCodec
from generate.image.config import CodecConfig

ENCODE_AT_ONCE = 256


@dataclass
class LatentPictures:
    """Every picture of a catalog, decoded and encoded once."""

    latents: NDArray[np.float16]
    """(num_items, channels, grid, grid), memory-mapped; zeros where there is no picture."""
    present: NDArray[np.bool_]
    """(num_items,)."""


def fit_codec(catalog: Catalog, config: CodecConfig, image_size: int, seed: int) -> PatchCodec:
    """A codec of a sample of the catalog's pictures."""
    if image_size % config.patch_size:
        below = image_size // config.patch_size * config.patch_size
        raise VitrineError(
            f"image_size {image_size} is not a multiple of the codec's patch_size "
            f"{config.patch_size}; try {max(below, config.patch_size)} or "
            f"{below + config.patch_size}."
        )
    if not 0 <= config.overlap <= config.patch_size // 2:
        raise VitrineError(
            f"codec.overlap {config.overlap} is not between 0 and half the patch_size, "
            f"{config.patch_size // 2}."
        )
    numbers = 3 * (config.patch_size + 2 * config.overlap) ** 2
    if config.channels > numbers:
        raise VitrineError(
            f"codec.channels {config.channels} is more than the {numbers} numbers of a patch; "
            f"use {numbers} or fewer."
        )
    sample: list[NDArray[np.uint8]] = []
    for item in np.random.default_rng(seed).permutation(catalog.num_items):
        picture = catalog.image_of(int(item), image_size)
        if picture is not None:
            sample.append(picture)
        if len(sample) == config.fit_pictures:
            break
    if not sample:
        raise VitrineError(
            f"the catalog {catalog.name!r} has no readable picture; an image generator needs some."
        )
    return PatchCodec.fit(
        np.stack(sample), config.patch_size, config.channels, config.overlap, config.whitening
    )


def encode_pictures(
    catalog: Catalog,
    codec: PatchCodec,
    image_size: int,
    file: Path,
    progress: bool = False,
) -> LatentPictures:
    """Encodes the catalog into `file`, or maps it again where this catalog and codec made it."""
    grid = image_size // int(codec.config["patch_size"])
    shape = (catalog.num_items, int(codec.config["channels"]), grid, grid)
    key = json.dumps(
        [catalog.fingerprint, *shape, float(codec.basis.abs().sum() + codec.scale.sum())]
    )
    note = file.with_suffix(".json")
    masks = file.with_suffix(".present.npy")
    if not (note.exists() and note.read_text() == key):
        file.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        latents = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)
        present = np.zeros(catalog.num_items, dtype=bool)
        starts = range(0, catalog.num_items, ENCODE_AT_ONCE)
        title = "Reading pictures"
        for start in track(starts, title, shown=progress):
            items = range(start, min(start + ENCODE_AT_ONCE, catalog.num_items))
            found = [(item, catalog.image_of(item, image_size)) for item in items]
            kept = {item: picture for item, picture in found if picture is not None}
            if kept:
                rows = list(kept)
                pixels = torch.from_numpy(np.stack(list(kept.values())))
                latents[rows] = codec.encode(pixels).numpy().astype(np.float16)
                present[rows] = True
        latents.flush()
        np.save(masks, present, allow_pickle=False)
        note.write_text(key)
    latents = np.memmap(file, dtype=np.float16, mode="r", shape=shape)
    return LatentPictures(latents, np.load(masks, allow_pickle=False))
