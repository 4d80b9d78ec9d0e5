"""Where the item is in its own picture: masks for creative mode, from the best source there is, and judged.

The picture is read at its own resolution and never resampled; only masks are. A mask that would cut the item
off, or keep its background, is refused, and then the next source is tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.images import read_alpha, read_own_image
from generate.image.structure import MARGIN, foreground_mask

MASK_COLUMN = "mask"
"""Column of the items that names a file with the mask of an item's picture: white on black, or an alpha
channel."""
OPAQUE = 250
"""Alpha (of 255) from which a pixel is the item's own; others are mixed with what is behind it."""
MIN_AREA, MAX_AREA = 0.02, 0.95
"""Fraction of the picture that a mask covers: less is a speck, more leaves no background."""
MAX_CONTACT = 0.25
"""Fraction of the picture's border that a mask touches, at most: more is background taken for the item."""
SIDE = 512
"""Pixels of the longer side of the picture in which GrabCut searches, at most."""
NEAR = 40
"""Difference (of 255) from the background's colour up to which a pixel may be background."""
FLAT = (3, 2, 1)
"""Differences (of 255) between neighbouring pixels that are flat, tried in this order."""
SHARE_OUTSIDE = 0.3
"""Fraction of a flat area that lies outside the mask, from which all of it is background."""
MAX_RIM = 0.06
"""Radius of the largest circle in a rim of background, as a fraction of the picture's shorter side."""
BESIDE = 0.1
"""Distance of the background with which a pixel is compared, as a fraction of the shorter side."""
SAME = 4
"""Median difference (of 255) of a part from the background beside it, up to which it is background."""
NO_IMAGE = "it has no readable image, and creative mode keeps the item's own pixels"
REFUSED = "no mask of it is good enough"
"""Beginning of the reason why an item has no creative image."""

Mask = NDArray[np.bool_]
Segmenter = Callable[[NDArray[np.uint8]], Mask]
"""Picture (height, width, 3) → mask (height, width)."""


@dataclass(frozen=True)
class Foreground:
    """An item's picture and where the item is in it; or why there is none."""

    image: NDArray[np.uint8] | None = None
    """(height, width, 3) at the picture's own resolution."""
    mask: Mask | None = None
    """bool (height, width): the item's pixels."""
    source: str = ""
    """Where the mask is from: alpha, column, model, or grabcut."""
    reason: str = ""
    """Why there is no mask, else ""."""


def find_foreground(catalog: Catalog, item: int, segmenter: Segmenter | None = None) -> Foreground:
    """The item's picture with the first mask that is good enough: of its alpha channel, the catalog's column
    `mask`, `segmenter`, or GrabCut where there is no segmenter."""
    path = catalog.media_path(item)
    if path is None:
        return Foreground(reason=NO_IMAGE)
    try:
        image = read_own_image(path)
    except BrokenFileError as reason:
        catalog.broken_images[item] = str(reason)
        return Foreground(reason=NO_IMAGE)
    refused = []
    for source, mask, inset in _masks(catalog, item, path, image, segmenter):
        fault = judge_mask(mask, inset) if isinstance(mask, np.ndarray) else mask
        if not fault:
            return Foreground(image, mask, source)  # pyright: ignore[reportArgumentType]
        refused.append(f"{source} {fault}")
    return Foreground(image, reason=f"{REFUSED}: {'; '.join(refused)}")


def judge_mask(mask: Mask, inset: int = 0) -> str:
    """Why a mask (height, width) is refused, "" for one that is good enough.

    `inset`: pixels along the border that were taken for background without a look; the border is what is
    inside of them.
    """
    area = float(mask.mean())
    if not MIN_AREA <= area <= MAX_AREA:
        return f"covers {area:.1%} of the picture, not {MIN_AREA:.0%} to {MAX_AREA:.0%}"
    inner = mask[inset : mask.shape[0] - inset, inset : mask.shape[1] - inset]
    border = np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])
    contact = float(border.mean())
    if contact > MAX_CONTACT:
        return f"touches {contact:.0%} of the picture's border, more than {MAX_CONTACT:.0%}"
    return ""


def _masks(
    catalog: Catalog,
    item: int,
    path: str,
    image: NDArray[np.uint8],
    segmenter: Segmenter | None,
) -> Iterator[tuple[str, Mask | str, int]]:
    """Source, mask or why there is none, and inset (see `judge_mask`), the best source first."""
    alpha = read_alpha(path)
    if alpha is not None:
        yield "alpha", alpha >= OPAQUE, 0
    found = _column_mask(catalog, item, image.shape[:2])
    if found is not None:
        yield "column", found, 0
    if segmenter is not None:
        yield "model", segmenter(image), 0
    else:
        yield ("grabcut", *grabcut_mask(image))


def _column_mask(catalog: Catalog, item: int, shape: tuple[int, ...]) -> Mask | str | None:
    """The mask that the catalog names, at `shape`; a text where it cannot be read; None without one."""
    try:
        path = catalog.media_path(item, MASK_COLUMN)
        if path is None:
            return None
        values = read_alpha(path)
        if values is None:
            values = read_own_image(path).mean(2)
    except BrokenFileError as reason:
        return f"cannot be read ({reason})"
    return resize_mask(values >= 128, shape)


def grabcut_mask(image: NDArray[np.uint8]) -> tuple[Mask, int]:
    """GrabCut's mask of a picture of any size, and the pixels along the border that it takes for
    background."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
    small = np.asarray(small, np.uint8)
    mask = resize_mask(without_background(small, foreground_mask(small)), image.shape[:2])
    rim = max(1, round(MARGIN * min(height, width)))
    return mask, round(rim / scale)


def without_background(image: NDArray[np.uint8], mask: Mask) -> Mask:
    """The mask (height, width) without background that it took for the item: flat areas, in about the colour
    of what is outside, that lie in large part outside.

    GrabCut keeps a rim of a plain, unevenly lit background. A part of the mask that is thicker than such a
    rim and of another colour than the background beside it is the item itself, and stays.
    """
    outside = ~mask
    if not outside.any():
        return mask
    contrast = np.abs(image - _local_background(image, outside)).max(2)
    slopes = _slopes(image)
    thickest = MAX_RIM * min(mask.shape)
    for step in FLAT:
        flat = ((slopes <= step) & (contrast <= NEAR)).astype(np.uint8)
        count, areas = cv2.connectedComponents(flat, connectivity=4)
        sizes = np.bincount(areas.ravel(), minlength=count)
        background = np.bincount(areas[outside], minlength=count) >= SHARE_OUTSIDE * sizes
        background[0] = False  # what is in no area
        grown = cv2.dilate(background[areas].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        mask = mask & ~_rims(mask & grown & (contrast <= NEAR), contrast, thickest)
    return mask


def _local_background(image: NDArray[np.uint8], outside: Mask) -> NDArray[np.float32]:
    """Colour of the background at each pixel (height, width, 3): a mean of what is `outside` around it."""
    sigma = BESIDE * min(outside.shape)
    weights = cv2.GaussianBlur(outside.astype(np.float32), (0, 0), sigma)[..., None]
    summed = cv2.GaussianBlur(image * outside[..., None].astype(np.float32), (0, 0), sigma)
    mean = image[outside].mean(axis=0)
    return ((summed + 1e-3 * mean) / (weights + 1e-3)).astype(np.float32)


def _rims(region: Mask, contrast: NDArray[np.float32], thickest: float) -> Mask:
    """The connected parts of a region (height, width) that are thin, so that no circle of radius `thickest`
    fits into them, or whose colour is that of the background beside them."""
    _, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    radii = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    rims = np.zeros_like(region)
    for part in np.unique(parts[radii > thickest]):
        own = parts == part
        if np.median(contrast[own]) <= SAME:
            rims |= own
        region = region & ~own
    return rims | region


def _slopes(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Largest difference of each pixel (height, width) from the four beside it, after light smoothing."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    around = np.pad(smooth, ((1, 1), (1, 1), (0, 0)), mode="edge")
    neighbours = (around[2:, 1:-1], around[:-2, 1:-1], around[1:-1, 2:], around[1:-1, :-2])
    return np.max([np.abs(smooth - other).max(2) for other in neighbours], axis=0)


def resize_mask(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask at another size (height, width): true where more than half of it was."""
    if mask.shape == tuple(shape[:2]):
        return mask
    size = (int(shape[1]), int(shape[0]))
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
