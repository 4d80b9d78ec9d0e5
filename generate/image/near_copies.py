"""Is a drawn picture one that the generator learned from? Compared by small thumbnails."""

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
"""Of a thumbnail, whatever the picture's shape."""
CHUNK = 65_536
SAMPLE = 2000
SHARE = 0.01
"""Of the catalog's own pictures, so many lie nearer to another one than what counts as a copy."""
FILE, NOTE = "thumbnails.npy", "thumbnails.json"


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (height, width, 3) as SIDE² · 3 numbers."""
    whole = np.ascontiguousarray(pixels)
    small = cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()


@dataclass(frozen=True)
class TrainingImageIndex:
    """The pictures a generator learned from."""

    thumbnails: NDArray[np.uint8]
    """(pictures, SIDE² · 3), memory-mapped."""
    copy_threshold: float
    """Deviation (of 255) below which a picture counts as a copy."""

    def distances(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Of each picture to the nearest of these, as the deviation of its thumbnail's values, of 255."""
        return nearest_distances(np.stack([thumbnail(one) for one in pictures]), self.thumbnails)

    def near_copies(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
        return self.distances(pictures) < self.copy_threshold

    @classmethod
    def load(cls, folder: Path) -> Self:
        known = json.loads((folder / NOTE).read_text())
        return cls(
            np.load(folder / FILE, mmap_mode="r", allow_pickle=False), known["nearest_apart"]
        )


def save_thumbnails(
    pictures: LatentCache, codec: Codec, folder: Path, progress: bool = False
) -> None:
    """Writes what `Seen.load` reads."""
    counts = [int((pictures.bucket_of == place).sum()) for place in range(len(pictures.frames))]
    file = np.lib.format.open_memmap(
        folder / FILE, mode="w+", dtype=np.uint8, shape=(sum(counts), 3 * SIDE**2)
    )
    done = 0
    for place in range(len(pictures.frames)):
        rows = np.sort(pictures.row_of[pictures.bucket_of == place])
        for start in track(range(0, len(rows), 256), "Thumbnails", shown=progress):
            for one in codec.decode_latents(pictures.latents[place][rows[start : start + 256]]):
                file[done] = thumbnail(one)
                done += 1
    file.flush()
    sample = np.random.default_rng(0).permutation(done)[:SAMPLE]
    apart = nearest_distances(np.array(file[np.sort(sample)]), file, leave_out=np.sort(sample))
    different = apart[apart > 0]  # items that share a picture
    least = float(np.quantile(different, SHARE)) if len(different) else 0.0
    (folder / NOTE).write_text(json.dumps({"nearest_apart": least}))


def nearest_distances(
    asked: NDArray[np.uint8],
    known: NDArray[np.uint8],
    leave_out: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """Root mean square difference (n,) of each of `asked` (n, numbers) to the nearest of `known`;
    `leave_out` (n,) is a row of `known` that does not count for it."""
    ours = asked.astype(np.float64)
    best = np.full(len(ours), np.inf)
    for start in range(0, len(known), CHUNK):
        theirs = known[start : start + CHUNK].astype(np.float64)
        squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * ours @ theirs.T
        if leave_out is not None:
            inside = (leave_out >= start) & (leave_out < start + len(theirs))
            squares[np.flatnonzero(inside), leave_out[inside] - start] = np.inf
        best = np.minimum(best, squares.min(1))
    return np.sqrt(np.maximum(best, 0) / asked.shape[1])
