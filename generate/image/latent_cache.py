"""Every picture of a catalog as latents and structure: read once, then from disk."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.atomic_write import replace_file
from catalog.catalog import Catalog
from catalog.errors import BrokenFileError, VitrineError
from catalog.images import read_image_shape
from catalog.progress import track
from generate.image.codec import Codec, ImageSize, PatchCodec
from generate.image.config import ImageConfig
from generate.image.structure import CHANNELS, foreground_mask, structure_map

ENCODE_AT_ONCE = 256
ROOM = 0.25
"""Share by which a frame's area may differ from that of the square."""


@dataclass
class LatentCache:
    """Memory-mapped, by frame."""

    frames: list[ImageSize]
    bucket_of: NDArray[np.int16]
    """(num_items,): place among `frames`; -1 where there is no picture."""
    row_of: NDArray[np.int64]
    """(num_items,): row among the pictures of that frame."""
    latents: list[NDArray[np.float16]]
    """Of each frame (pictures, channels, rows, columns)."""
    structures: list[NDArray[np.uint8]]
    """Of each frame (pictures, CHANNELS, rows, columns)."""


def choose_resolution_buckets(
    catalog: Catalog, config: ImageConfig, patch_size: int
) -> list[ImageSize]:
    """At most `config.num_resolution_buckets` image sizes of about image_size² pixels, those nearest to most
    images of a sample, the most common first. VitrineError where no image can be read."""
    sides = range(patch_size, 3 * config.image_size, patch_size)
    area = config.image_size**2
    near = [
        (height, width)
        for height in sides
        for width in sides
        if abs(height * width / area - 1) <= ROOM
    ]
    near.sort(key=lambda frame: abs(frame[0] * frame[1] - area))  # of like proportions the first
    votes: Counter[int] = Counter()
    for item in np.random.default_rng(config.trainer.seed).permutation(catalog.num_items):
        shape = shape_of(catalog, int(item))
        if shape is not None:
            votes[nearest_bucket(shape, near)] += 1
        if sum(votes.values()) == config.codec.fit_images:
            break
    if not votes:
        raise _no_picture(catalog)
    return [near[place] for place, _ in votes.most_common(config.num_resolution_buckets)]


def _no_picture(catalog: Catalog) -> VitrineError:
    return VitrineError(
        f"the catalog {catalog.name!r} has no readable picture; an image generator needs some."
    )


def shape_of(catalog: Catalog, item: int) -> ImageSize | None:
    path = catalog.media_path(item)
    if path is None:
        return None
    try:
        return read_image_shape(path)
    except BrokenFileError as reason:
        catalog.broken_images[item] = str(reason)
        return None


def nearest_bucket(shape: ImageSize, frames: list[ImageSize]) -> int:
    """Place of the frame of the nearest proportions."""
    wanted = np.log(shape[0] / shape[1])
    return int(np.argmin([abs(np.log(height / width) - wanted) for height, width in frames]))


def fit_codec(catalog: Catalog, config: ImageConfig) -> PatchCodec:
    """A codec of a sample of the catalog's pictures, each in the frame nearest to its shape."""
    check_sides(config, config.codec.patch_size, "the codec's patch_size")
    settings = config.codec
    patch = settings.patch_size
    if not 0 <= settings.overlap <= patch // 2:
        raise VitrineError(
            f"codec.overlap {settings.overlap} is not between 0 and half the patch_size, {patch // 2}."
        )
    numbers = 3 * (patch + 2 * settings.overlap) ** 2
    if settings.channels > numbers:
        raise VitrineError(
            f"codec.channels {settings.channels} is more than the {numbers} numbers of a patch; "
            f"use {numbers} or fewer."
        )
    frames = choose_resolution_buckets(catalog, config, patch)
    sample: dict[ImageSize, list[NDArray[np.uint8]]] = {frame: [] for frame in frames}
    order = np.random.default_rng(config.trainer.seed).permutation(catalog.num_items)
    for item in order.tolist():
        shape = shape_of(catalog, item)
        frame = frames[nearest_bucket(shape, frames)] if shape else None
        picture = catalog.item_image(item, frame) if frame else None
        if frame is not None and picture is not None:
            sample[frame].append(picture)
        if sum(map(len, sample.values())) == settings.fit_images:
            break
    frames = [frame for frame in frames if sample[frame]]
    if not frames:
        raise _no_picture(catalog)
    stacks = [np.stack(sample[frame]) for frame in frames]
    return PatchCodec.fit(stacks, patch, settings.channels, settings.overlap, settings.whitening)


def check_sides(config: ImageConfig, side: int, name: str) -> None:
    """VitrineError where pictures of that size and number of shapes cannot be kept."""
    if config.image_size % side:
        below = config.image_size // side * side
        raise VitrineError(
            f"image_size {config.image_size} is not a multiple of {name} {side}; try "
            f"{max(below, side)} or {below + side}."
        )
    if config.num_resolution_buckets < 1:
        raise VitrineError(
            f"num_resolution_buckets is {config.num_resolution_buckets}; pictures need 1 shape or more."
        )


def encode_images(
    catalog: Catalog, codec: Codec, folder: Path, progress: bool = False
) -> LatentCache:
    """Reads the catalog's pictures into `folder`, from where it stopped; maps what is there already.

    Encoded are those that this catalog and codec made; anything else is made anew.
    """
    frames, channels = codec.frames, int(codec.config["channels"])
    weights = hashlib.sha256(codec.fingerprint()).hexdigest()
    made_from = [catalog.content_fingerprint, frames, CHANNELS, weights]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    note = folder / "made.json"
    told = json.loads(note.read_text()) if note.exists() else {}
    if told.get("key") != key:
        note.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        told = {"key": key, "done": 0, "broken": []}
        np.save(
            folder / "frames.npy", _assign_buckets(catalog, frames, progress), allow_pickle=False
        )
    bucket_of = np.load(folder / "frames.npy", allow_pickle=False)
    row_of = np.zeros(len(bucket_of), dtype=np.int64)
    files: list[tuple[np.memmap, np.memmap]] = []
    for place, frame in enumerate(frames):
        inside = bucket_of == place
        row_of[inside] = np.arange(inside.sum())
        grid = (max(1, int(inside.sum())), *codec.grid_of(frame))
        latents = _mapped(folder / f"latents-{place}.f16", np.float16, channels, grid)
        structures = _mapped(folder / f"structures-{place}.u8", np.uint8, CHANNELS, grid)
        files.append((latents, structures))
    starts = range(told["done"], catalog.num_items, ENCODE_AT_ONCE)
    for start in track(starts, "Reading pictures", shown=progress and len(starts) > 0):
        items = np.arange(start, min(start + ENCODE_AT_ONCE, catalog.num_items))
        for place, frame in enumerate(frames):
            latents, structures = files[place]
            for item in items[bucket_of[items] == place].tolist():
                picture = catalog.item_image(item, frame)
                if picture is None:
                    told["broken"].append(item)
                    continue
                row = row_of[item]
                latents[row] = codec.encode(torch.tensor(picture)[None])[0].cpu().numpy()
                grid = latents.shape[2:]
                structures[row] = structure_map(
                    picture, foreground_mask(picture), (grid[0], grid[1])
                )
            latents.flush()
            structures.flush()
        told["done"] = int(items[-1]) + 1
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps(told))
        replace_file(partial, note)
    bucket_of[told["broken"]] = -1
    return LatentCache(
        frames, bucket_of, row_of, [one for one, _ in files], [one for _, one in files]
    )


def _assign_buckets(catalog: Catalog, frames: list[ImageSize], progress: bool) -> NDArray[np.int16]:
    """(num_items,): place of each picture's frame, by its header alone; -1 where there is none."""
    found = np.full(catalog.num_items, -1, dtype=np.int16)
    if len(frames) == 1:
        paths = (catalog.media_path(item) for item in range(catalog.num_items))
        found[[path is not None for path in paths]] = 0
        return found
    for item in track(range(catalog.num_items), "Looking at pictures", shown=progress):
        shape = shape_of(catalog, item)
        if shape is not None:
            found[item] = nearest_bucket(shape, frames)
    return found


def _mapped(path: Path, kind: type, channels: int, grid: tuple[int, int, int]) -> np.memmap:
    """(pictures, channels, rows, columns), kept where it has this size."""
    shape = (grid[0], channels, *grid[1:])
    whole = path.exists() and path.stat().st_size == np.prod(shape) * np.dtype(kind).itemsize
    return np.memmap(path, dtype=kind, mode="r+" if whole else "w+", shape=shape)
