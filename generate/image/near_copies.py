"""Finds generated images that are near-copies of training images, by the distance of thumbnails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from catalog.progress import track
from generate.image.codec import Codec
from generate.image.latent_cache import LatentCache

SIDE = 8
"""Side of a thumbnail, whatever the image's shape."""
CHUNK = 65_536
SAMPLE = 2000
COPY_QUANTILE = 0.01
"""Quantile of the distances between the catalog's own images below which two images count as copies."""
THUMBNAILS_FILE, THRESHOLD_FILE = "thumbnails.npy", "thumbnails.json"


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Downsamples an image (height, width, 3) to SIDE² · 3 values."""
    whole = np.ascontiguousarray(pixels)
    small = cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()


@dataclass(frozen=True)
class TrainingImageIndex:
    """Thumbnails of the images a generator was trained on."""

    thumbnails: NDArray[np.uint8]
    """(num_images, SIDE² · 3), memory-mapped."""
    copy_threshold: float
    """Root mean square difference (of 255) below which an image counts as a copy."""

    def distances(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Root mean square difference, of 255, of each thumbnail to the nearest training thumbnail."""
        return nearest_distances(np.stack([thumbnail(one) for one in images]), self.thumbnails)

    def near_copies(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
        """Whether each image is a near-copy of a training image."""
        return self.distances(images) < self.copy_threshold

    @classmethod
    def load(cls, folder: Path) -> Self:
        threshold = json.loads((folder / THRESHOLD_FILE).read_text())["copy_threshold"]
        thumbnails = np.load(folder / THUMBNAILS_FILE, mmap_mode="r", allow_pickle=False)
        return cls(thumbnails, threshold)


def save_training_image_index(
    latents: LatentCache, codec: Codec, folder: Path, progress: bool = False
) -> None:
    """Writes the thumbnails of all training images and the copy threshold, for `TrainingImageIndex.load`."""
    counts = [int((latents.bucket_of == index).sum()) for index in range(len(latents.buckets))]
    file = np.lib.format.open_memmap(
        folder / THUMBNAILS_FILE, mode="w+", dtype=np.uint8, shape=(sum(counts), 3 * SIDE**2)
    )
    done = 0
    for index in range(len(latents.buckets)):
        rows = np.sort(latents.row_of[latents.bucket_of == index])
        for start in track(range(0, len(rows), 256), "Thumbnails", shown=progress):
            for image in codec.decode_latents(latents.latents[index][rows[start : start + 256]]):
                file[done] = thumbnail(image)
                done += 1
    file.flush()
    sample = np.sort(np.random.default_rng(0).permutation(done)[:SAMPLE])
    distances = nearest_distances(np.array(file[sample]), file, excluded=sample)
    positive = distances[distances > 0]  # items may share an image
    threshold = float(np.quantile(positive, COPY_QUANTILE)) if len(positive) else 0.0
    (folder / THRESHOLD_FILE).write_text(json.dumps({"copy_threshold": threshold}))


def nearest_distances(
    queries: NDArray[np.uint8],
    known: NDArray[np.uint8],
    excluded: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """Root mean square difference (n,) of each of `queries` (n, values) to the nearest of `known`;
    `excluded` (n,) is a row of `known` that does not count for it."""
    ours = queries.astype(np.float64)
    nearest = np.full(len(ours), np.inf)
    for start in range(0, len(known), CHUNK):
        theirs = known[start : start + CHUNK].astype(np.float64)
        squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * ours @ theirs.T
        if excluded is not None:
            inside = (excluded >= start) & (excluded < start + len(theirs))
            squares[np.flatnonzero(inside), excluded[inside] - start] = np.inf
        nearest = np.minimum(nearest, squares.min(1))
    return np.sqrt(np.maximum(nearest, 0) / queries.shape[1])
