"""Decodes every image of a catalog once: size, digest, perceptual hash and thumbnail of each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.images import read_image_shape
from catalog.progress import track

SIDE = 64
"""Size at which images are decoded."""
GRID = 8
"""Side of the stored thumbnail and of the perceptual hash."""
STEP = 3
"""Difference of brightness, of 255, below which neighbouring cells count as equal: the white ground of a
product's photo then gives the same bits however the file is compressed."""


@dataclass(frozen=True, eq=False)
class PictureScan:
    """Properties of the images that could be decoded, in the order of the items."""

    items: NDArray[np.int64]
    """(n,): rows of the items that have a readable image."""
    digests: NDArray[np.uint64]
    """(n,): hash of the file's bytes."""
    shapes: NDArray[np.int32]
    """(n, 2): height, width in pixels."""
    hashes: NDArray[np.uint64]
    """(n, 2): dHash along rows and along columns, 64 bits each."""
    spreads: NDArray[np.float32]
    """(n,): the largest standard deviation of a colour channel, of 255."""
    thumbnails: NDArray[np.uint8]
    """(n, GRID, GRID, 3): memory-mapped."""


def scan_pictures(catalog: Catalog, folder: Path) -> PictureScan:
    """Reads all images; broken ones are counted in `catalog.broken_images`. `folder`: of a temporary file."""
    column = catalog.items.data.column("image")
    given = np.flatnonzero(column.is_valid().to_numpy())
    size = len(given)
    thumbnails = np.empty((0, GRID, GRID, 3), np.uint8)
    if size:
        thumbnails = np.lib.format.open_memmap(
            folder / "thumbnails.npy", "w+", np.uint8, (size, GRID, GRID, 3)
        )
    items, digests = np.empty(size, np.int64), np.empty(size, np.uint64)
    shapes, hashes = np.empty((size, 2), np.int32), np.empty((size, 2), np.uint64)
    spreads = np.empty(size, np.float32)
    count = 0
    for item in track(given.tolist(), "Reading images"):
        pixels = catalog.item_image(item, SIDE)
        if pixels is None:
            continue
        path = column[item].as_py()
        try:
            shape = read_image_shape(path)
        except BrokenFileError as reason:
            catalog.broken_images[item] = str(reason)
            continue
        items[count], shapes[count] = item, shape
        digests[count] = file_digest(path)
        content = Image.fromarray(without_padding(pixels, shape))
        hashes[count] = dhash(content)
        small = content.resize((GRID, GRID), Image.Resampling.BOX)
        thumbnails[count] = np.asarray(small)
        spreads[count] = np.asarray(content).reshape(-1, 3).std(axis=0).max()
        count += 1
    return PictureScan(
        items[:count],
        digests[:count],
        shapes[:count],
        hashes[:count],
        spreads[:count],
        thumbnails[:count],
    )


def file_digest(path: str) -> int:
    with Path(path).open("rb") as file:
        whole = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return int.from_bytes(whole.digest(), "big")


def without_padding(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The image inside its square letterbox; `shape`: (height, width) of the original."""
    whole = len(pixels)
    scale = min(whole / shape[0], whole / shape[1])
    height, width = (min(whole, max(1, round(side * scale))) for side in shape)
    top, left = (whole - height) // 2, (whole - width) // 2
    return pixels[top : top + height, left : left + width]


def dhash(image: Image.Image) -> tuple[int, int]:
    """Difference hashes of an RGB image: whether brightness rises along rows, and along columns."""
    grey = image.convert("L")
    box = Image.Resampling.BOX
    wide = np.asarray(grey.resize((GRID + 1, GRID), box)).astype(np.int16)
    high = np.asarray(grey.resize((GRID, GRID + 1), box)).astype(np.int16)
    rising = np.diff(wide, axis=1) > STEP, np.diff(high, axis=0) > STEP
    rows, columns = (
        int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big") for bits in rising
    )
    return rows, columns
