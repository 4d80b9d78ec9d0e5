"""Invisible watermark in an image's lightness: it says that a model generated the image, and nothing else.

It names neither generator nor user, so anyone may look for it. `benchmarks/provenance.py` measures which
changes of an image it survives. It is not robust against removal on purpose.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 64
"""The watermark repeats after so many pixels, so that a crop contains all of it."""
BAND = (0.03, 0.2)
"""Frequency band of the watermark, in cycles per pixel: lower ones would be visible, JPEG drops higher
ones."""
STRENGTH = 3.0
"""Standard deviation of the watermark, in levels of 255."""
ZOOMS = np.geomspace(0.5, 2.0, 25)
"""Relative image scales at which the watermark is searched."""
THRESHOLD = 6.5
"""Score (standard deviations above chance) from which an image counts as watermarked: the maximum over
`TILE`² offsets and 25 scales stays below it for all but one in ten thousand unmarked images (see the
record)."""


def embed_watermark(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (height, width, 3) with the watermark added."""
    height, width = pixels.shape[:2]
    repeats = (-(-height // TILE), -(-width // TILE))
    pattern = np.tile(_pattern(), repeats)[:height, :width, None]
    return np.clip(np.rint(pixels + STRENGTH * pattern), 0, 255).astype(np.uint8)


def detect_watermark(pixels: NDArray[np.uint8]) -> float:
    """Detection score of an image (height, width, 3): its correlation with the watermark, in standard
    deviations above chance, at the best scale and offset; THRESHOLD or more: watermarked."""
    return max(_correlation(pixels, zoom) for zoom in ZOOMS)


def _correlation(pixels: NDArray[np.uint8], zoom: float) -> float:
    height, width = (max(1, round(side / zoom)) for side in pixels.shape[:2])
    if min(height, width) < TILE // 4:
        return 0.0
    lightness = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    interpolation = cv2.INTER_AREA if zoom > 1 else cv2.INTER_CUBIC
    lightness = cv2.resize(lightness, (width, height), interpolation=interpolation)
    # High-pass residual divided by its local magnitude, so that edges do not dominate.
    residual = lightness - cv2.GaussianBlur(lightness, (0, 0), 2.5)
    residual /= 2 + cv2.GaussianBlur(np.abs(residual), (0, 0), 4)
    folded, counts = np.zeros((TILE, TILE)), np.zeros((TILE, TILE))
    rows, columns = np.arange(height) % TILE, np.arange(width) % TILE
    np.add.at(folded, (rows[:, None], columns[None, :]), residual)
    np.add.at(counts, (rows[:, None], columns[None, :]), 1.0)
    folded /= np.sqrt(np.maximum(counts, 1))
    spectrum = np.fft.rfft2(folded)
    level = np.abs(spectrum) * _band_mask()
    # Whitened spectrum: every frequency of the band counts alike, or stripes would dominate.
    spectrum = np.where(level > 0, spectrum / np.maximum(level, 1e-9), 0)
    correlation = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(_pattern())), s=(TILE, TILE))
    return float((correlation.max() - correlation.mean()) / max(correlation.std(), 1e-12))


@cache
def _pattern() -> NDArray[np.float64]:
    """(TILE, TILE), mean 0, variance 1: all frequencies of the band at equal amplitude, with fixed phases."""
    phases = np.fft.rfft2(np.random.default_rng(20260101).normal(size=(TILE, TILE)))
    waves = np.fft.irfft2(phases / np.abs(phases) * _band_mask(), s=(TILE, TILE))
    return waves / waves.std()


@cache
def _band_mask() -> NDArray[np.bool_]:
    """Which frequencies of a tile lie in the band."""
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    return (frequency >= BAND[0]) & (frequency <= BAND[1])
