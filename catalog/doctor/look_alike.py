"""Decides whether two images show the same photo: aligned at low resolution, then compared in detail.

Photos of two black trousers on white agree in every coarse respect; only what remains after blurring is
subtracted tells a copy from another product.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDES = (48, 128)
"""Sides, in pixels, at which details are compared: first the small one; then the large one, or as much as
both images have."""
MOST_SHIFT = 0.06
"""Displacement at most that alignment allows, as a share of a side."""
STEPS = 2
BLUR, NEARBY = 2, 3
"""Radius of the blur that details are left from, and of the square that they are compared with."""
NOISE = 8.0
"""Details, of 255, that compression changes."""
MARGIN = 1 / 12
"""Share of each side at the border that is not compared: a crop has no counterpart of it."""
Pixels = NDArray[np.float64]


def residuals(left: Pixels, right: Pixels) -> NDArray[np.float64]:
    """The difference (p,) of thumbnails (p, side, side, 3) after `right` is shifted and stretched, by one
    step of least squares; relative to the smaller of their contrasts."""
    side = left.shape[1]
    rise_y, rise_x = np.gradient((left + right) / 2, axis=(1, 2))
    y, x = (one[None, :, :, None] for one in np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    slopes = np.stack([rise_x, rise_x * x, rise_y, rise_y * y], axis=-1).reshape(len(left), -1, 4)
    off = (right - left).reshape(len(left), -1, 1)
    normal = slopes.transpose(0, 2, 1) @ slopes + 1e-3 * np.eye(4)
    moved = np.linalg.solve(normal, slopes.transpose(0, 2, 1) @ off)
    moved = np.clip(moved, -MOST_SHIFT * side, MOST_SHIFT * side)
    rest = np.sqrt(np.square(off - slopes @ moved).mean(axis=(1, 2)))
    contrast = np.minimum(left.std(axis=(1, 2)).max(axis=-1), right.std(axis=(1, 2)).max(axis=-1))
    return rest / np.maximum(contrast, 1.0)


def same_photo(left: NDArray[np.uint8], right: NDArray[np.uint8], least: float) -> bool:
    """Whether the details of two RGB images (height, width, 3) correlate by `least` at both `SIDES`."""
    small, large = SIDES
    large = min(large, *left.shape[:2], *right.shape[:2])
    motion = np.zeros(4)
    for side in (small, large) if large > small else (small,):
        likeness, motion = _detail_likeness(_grey(left, side), _grey(right, side), motion)
        if likeness < least:
            return False
    return True


def _detail_likeness(left: Image.Image, right: Image.Image, motion: Pixels) -> tuple[float, Pixels]:
    """Correlation, from -1 to 1, of the details of two square grey images after alignment, and the motion
    (4,) that aligns them: shift and stretch of x, then of y, as shares of half a side."""
    pixels, moved, motion = _aligned(left, right, motion)
    cut = round(MARGIN * len(pixels))
    details = [_details(one)[cut:-cut, cut:-cut].reshape(-1) for one in (pixels, moved)]
    one, other = (values - values.mean() for values in details)
    return float(one @ other / np.sqrt((one @ one) * (other @ other) + 1e-9)), motion


def _grey(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    grey = Image.fromarray(pixels).convert("L")
    way = Image.Resampling.BOX if min(grey.size) >= side else Image.Resampling.BILINEAR
    return grey.resize((side, side), way)


def _aligned(
    left: Image.Image, right: Image.Image, motion: Pixels
) -> tuple[Pixels, Pixels, Pixels]:
    """Both as pixels, the right one shifted and stretched onto the left one, and the motion (Lucas and
    Kanade 1981)."""
    side = left.width
    half = side / 2
    fixed = np.asarray(left).astype(np.float64)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inner = (slice(2, -2), slice(2, -2))
    moved = _warped(right, motion * half)
    for _ in range(STEPS):
        rise_y, rise_x = np.gradient((fixed + moved) / 2)
        slopes = np.stack([rise_x, rise_x * x, rise_y, rise_y * y], axis=-1)[inner].reshape(-1, 4)
        off = (fixed - moved)[inner].reshape(-1)
        more = np.linalg.solve(slopes.T @ slopes + 1e-3 * np.eye(4), slopes.T @ off)
        motion = np.clip(motion + more / half, -2 * MOST_SHIFT, 2 * MOST_SHIFT)
        moved = _warped(right, motion * half)
    return fixed, moved, motion


def _warped(image: Image.Image, motion: Pixels) -> Pixels:
    """The image shifted and stretched about its middle by `motion` in pixels, as (side, side)."""
    half = image.width / 2  # Pillow counts from pixels' corners
    wide, high = 1 + motion[1] / half, 1 + motion[3] / half
    x, y = half + motion[0] - wide * half, half + motion[2] - high * half
    way = Image.Resampling.BICUBIC
    warped = image.transform(image.size, Image.Transform.AFFINE, (wide, 0, x, 0, high, y), way)
    return np.asarray(warped).astype(np.float64)


def _details(pixels: Pixels) -> Pixels:
    """What blurring removes, relative to how much that is nearby: folds count as much as outlines."""
    details = pixels - _blurred(pixels, BLUR)
    return details / (np.sqrt(np.maximum(_blurred(np.square(details), NEARBY), 0)) + NOISE)


def _blurred(pixels: Pixels, radius: int) -> Pixels:
    """Means over squares of 2 · radius + 1 pixels."""
    width = 2 * radius + 1
    sums = np.cumsum(np.cumsum(np.pad(pixels, radius, mode="edge"), axis=0), axis=1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    ends = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width]
    return (ends + sums[:-width, :-width]) / width**2
