"""Latents and structures of all of a catalog's images: encoded once, resumable, then memory-mapped."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.atomic_write import replace_file
from catalog.catalog import Catalog
from catalog.progress import track
from generate.image.codec import Codec
from generate.image.resolution_buckets import (
    ImageSize,
    image_shape,
    nearest_bucket,
)
from generate.image.structure import CHANNELS, foreground_mask, structure_map

ITEMS_PER_SAVE = 256


@dataclass
class LatentCache:
    """Memory-mapped latents and structures, by resolution bucket."""

    buckets: list[ImageSize]
    bucket_of: NDArray[np.int16]
    """(num_items,): index into `buckets`; -1 for items without an image."""
    row_of: NDArray[np.int64]
    """(num_items,): row among the images of that bucket."""
    latents: list[NDArray[np.float16]]
    """For each bucket (images, channels, rows, columns)."""
    structures: list[NDArray[np.uint8]]
    """For each bucket (images, CHANNELS, rows, columns)."""

    @classmethod
    def open(cls, folder: Path, codec: Codec, bucket_of: NDArray[np.int16]) -> Self:
        """The arrays in `folder`, created with zeros where they do not have their size yet."""
        row_of = np.zeros(len(bucket_of), dtype=np.int64)
        latents: list[NDArray[np.float16]] = []
        structures: list[NDArray[np.uint8]] = []
        channels = int(codec.config["channels"])
        for index, bucket in enumerate(codec.buckets):
            inside = bucket_of == index
            row_of[inside] = np.arange(inside.sum())
            grid = (max(1, int(inside.sum())), *codec.latent_grid(bucket))
            latents.append(_mapped(folder / f"latents-{index}.f16", np.float16, channels, grid))
            structures.append(_mapped(folder / f"structures-{index}.u8", np.uint8, CHANNELS, grid))
        return cls(codec.buckets, bucket_of, row_of, latents, structures)

    def encode(self, catalog: Catalog, codec: Codec, items: NDArray[np.integer]) -> list[int]:
        """Fills the rows of `items`; returns those whose image cannot be read."""
        broken: list[int] = []
        for index, bucket in enumerate(self.buckets):
            latents, structures = self.latents[index], self.structures[index]
            grid = codec.latent_grid(bucket)
            for item in items[self.bucket_of[items] == index].tolist():
                image = catalog.item_image(item, bucket)
                if image is None:
                    broken.append(item)
                    continue
                row = self.row_of[item]
                latents[row] = codec.encode(torch.tensor(image)[None])[0].cpu().numpy()
                structures[row] = structure_map(image, foreground_mask(image), grid)
            for array in (latents, structures):
                assert isinstance(array, np.memmap)
                array.flush()
        return broken


def encode_images(
    catalog: Catalog, codec: Codec, folder: Path, progress: bool = False
) -> LatentCache:
    """Encodes the catalog's images into `folder`, from where an earlier call stopped.

    What another catalog or codec left there is replaced.
    """
    weights = hashlib.sha256(codec.fingerprint()).hexdigest()
    content = [catalog.content_fingerprint, codec.buckets, CHANNELS, weights]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    state_file, bucket_file = folder / "state.json", folder / "buckets.npy"
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    if state.get("key") != key:
        state_file.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        state = {"key": key, "done": 0, "broken": []}
        np.save(bucket_file, _assign_buckets(catalog, codec.buckets, progress), allow_pickle=False)
    cache = LatentCache.open(folder, codec, np.load(bucket_file, allow_pickle=False))
    starts = range(state["done"], catalog.num_items, ITEMS_PER_SAVE)
    for start in track(starts, "Encoding images", shown=progress and len(starts) > 0):
        items = np.arange(start, min(start + ITEMS_PER_SAVE, catalog.num_items))
        state["broken"] += cache.encode(catalog, codec, items)
        state["done"] = int(items[-1]) + 1
        partial = state_file.with_suffix(".partial")
        partial.write_text(json.dumps(state))
        replace_file(partial, state_file)
    cache.bucket_of[state["broken"]] = -1
    return cache


def _assign_buckets(
    catalog: Catalog, buckets: list[ImageSize], progress: bool
) -> NDArray[np.int16]:
    """(num_items,): index of each image's bucket, from its header alone; -1 without an image."""
    assigned = np.full(catalog.num_items, -1, dtype=np.int16)
    if len(buckets) == 1:
        paths = (catalog.media_path(item) for item in range(catalog.num_items))
        assigned[[path is not None for path in paths]] = 0
        return assigned
    for item in track(range(catalog.num_items), "Reading image sizes", shown=progress):
        shape = image_shape(catalog, item)
        if shape is not None:
            assigned[item] = nearest_bucket(shape, buckets)
    return assigned


def _mapped(path: Path, kind: type, channels: int, grid: tuple[int, int, int]) -> np.memmap:
    """(images, channels, rows, columns); an existing file is kept where it has this size."""
    shape = (grid[0], channels, *grid[1:])
    whole = path.exists() and path.stat().st_size == np.prod(shape) * np.dtype(kind).itemsize
    return np.memmap(path, dtype=kind, mode="r+" if whole else "w+", shape=shape)
