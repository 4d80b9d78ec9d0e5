"""A mark in a picture's lightness that nobody sees and a rule finds: this picture was made by a model.

It says that much and no more (no maker, no person), so anybody may look for it. What it survives is
measured by `benchmarks/provenance.py`. It is a notice, no lock: whoever wants to remove it can.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 64
"""The mark repeats every so many pixels, so that a part of a picture holds all of it."""
BAND = (0.03, 0.2)
"""Cycles a pixel, between which the mark lies: below, it would show as a stain; above, JPEG drops it."""
STRENGTH = 3.0
"""Its deviation, of 255."""
ZOOMS = np.geomspace(0.5, 2.0, 25)
"""Sizes at which it is looked for, of that at which a picture was made."""
THRESHOLD = 6.5
"""Deviations from chance at which a mark counts as found: the largest of `TILE`² places and 25 sizes
stays below but for less than one picture in ten thousand (see the record)."""


def embed_watermark(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (height, width, 3) with the mark in it."""
    height, width = pixels.shape[:2]
    repeats = (-(-height // TILE), -(-width // TILE))
    pattern = np.tile(_pattern(), repeats)[:height, :width, None]
    return np.clip(np.rint(pixels + STRENGTH * pattern), 0, 255).astype(np.uint8)


def detect_watermark(pixels: NDArray[np.uint8]) -> float:
    """How far from chance the likeness of a picture (height, width, 3) to the mark is, in deviations, at
    the size and the place where it is largest; THRESHOLD or more: marked."""
    return max(_likeness(pixels, zoom) for zoom in ZOOMS)


def _likeness(pixels: NDArray[np.uint8], zoom: float) -> float:
    height, width = (max(1, round(side / zoom)) for side in pixels.shape[:2])
    if min(height, width) < TILE // 4:
        return 0.0
    light = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    way = cv2.INTER_AREA if zoom > 1 else cv2.INTER_CUBIC
    light = cv2.resize(light, (width, height), interpolation=way)
    # What a neighbourhood does not tell, over how much it varies there: edges must not outshout.
    rest = light - cv2.GaussianBlur(light, (0, 0), 2.5)
    rest /= 2 + cv2.GaussianBlur(np.abs(rest), (0, 0), 4)
    folded, counts = np.zeros((TILE, TILE)), np.zeros((TILE, TILE))
    rows, columns = np.arange(height) % TILE, np.arange(width) % TILE
    np.add.at(folded, (rows[:, None], columns[None, :]), rest)
    np.add.at(counts, (rows[:, None], columns[None, :]), 1.0)
    folded /= np.sqrt(np.maximum(counts, 1))
    spectrum = np.fft.rfft2(folded)
    level = np.abs(spectrum) * _inside()
    # Every wave of the band counts alike: a striped picture is loud in few of them.
    spectrum = np.where(level > 0, spectrum / np.maximum(level, 1e-9), 0)
    likeness = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(_pattern())), s=(TILE, TILE))
    return float((likeness.max() - likeness.mean()) / max(likeness.std(), 1e-12))


@cache
def _pattern() -> NDArray[np.float64]:
    """(TILE, TILE), mean 0, deviation 1: waves of the band, equally strong, of fixed phases."""
    phases = np.fft.rfft2(np.random.default_rng(20260101).normal(size=(TILE, TILE)))
    waves = np.fft.irfft2(phases / np.abs(phases) * _inside(), s=(TILE, TILE))
    return waves / waves.std()


@cache
def _inside() -> NDArray[np.bool_]:
    """Which waves of a tile lie in the band."""
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    return (frequency >= BAND[0]) & (frequency <= BAND[1])
