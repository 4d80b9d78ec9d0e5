"""Repeats of the motifs and textures of the materials, as masks for painting."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catalog.demo.random_stream import RandomStream
from catalog.demo.shapes import Point, ellipse, leaf, line

TILE = 64
"""Side of a motif's repeat in drawn pixels: 16 pixels of the finished picture."""
REPEATS = 5
"""Repeats in a mask, so that a crop of four may begin anywhere in the first."""


@cache
def motif_mask(motif: str) -> Image.Image:
    """The mask of a motif, 255 inside and 0 outside: mode L, 320 × 320 drawn pixels."""
    return Image.fromarray(np.tile(motif_tile(motif), (REPEATS, REPEATS)))


@cache
def motif_tile(motif: str) -> NDArray[np.uint8]:
    """One repeat of the motif, (64, 64)."""
    steps = np.arange(TILE)
    band = (steps % 32 < 15) * 1
    match motif:
        case "stripes":
            return np.tile(band * 255, (TILE, 1)).astype(np.uint8)
        case "checks":
            # Woven: where two bands cross the colour is full, elsewhere half.
            return ((band[None, :] + band[:, None]) * 127).astype(np.uint8)
        case "waves":
            return _waves()
        case "dots":
            return _stamp([ellipse(x, y, 9.5, 9.5) for x, y in ((16, 16), (48, 48))])
        case "leaves":
            return _stamp(_sprig(16, 16, 1) + _sprig(48, 48, -1))
    return np.zeros((TILE, TILE), np.uint8)


def _waves() -> NDArray[np.uint8]:
    """Lines 32 apart whose crests are parabolas."""
    steps = np.arange(TILE)
    half = steps % 32
    height = half * (32 - half) * 9 // 256 * np.where(steps < 32, 1, -1)
    distance = (steps[:, None] - height[None, :] + 4 * TILE) % 32
    return ((distance < 11) * 255).astype(np.uint8)


def _sprig(x: int, y: int, side: int) -> list[list[Point]]:
    """A stem with three leaves, leaning to one side."""
    return [
        line((x - 7 * side, y + 16), (x + 3 * side, y - 2), 3),
        leaf((x + 2 * side, y), (x + 9 * side, y - 19), 44),
        leaf((x - 2 * side, y + 6), (x + 16 * side, y + 4), 44),
        leaf((x, y + 4), (x - 15 * side, y - 9), 44),
    ]


def _stamp(figures: list[list[Point]]) -> NDArray[np.uint8]:
    """Draws figures into a tile; what leaves it on one side comes in on the other."""
    tile = Image.new("L", (TILE, TILE), 0)
    draw = ImageDraw.Draw(tile)
    for figure in figures:
        for across in (-TILE, 0, TILE):
            for down in (-TILE, 0, TILE):
                points = [(int(x + across + 500.5), int(y + down + 500.5)) for x, y in figure]
                draw.polygon([(x - 500, y - 500) for x, y in points], fill=255)
    return np.asarray(tile)


@cache
def texture_masks(material: str, size: int) -> tuple[Image.Image, Image.Image]:
    """Masks by which the material's texture lightens and darkens each pixel: (size, size), mode L."""
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    nothing = np.zeros((size, size), np.int64)
    rng = RandomStream(0, f"texture/{material}")
    match material:
        case "linen":
            light, dark = (across % 8 < 4) * 20, (down % 8 < 4) * 22
        case "wool":
            coarse = np.array([rng.below(26) for _ in range((size // 4) ** 2)])
            noise = np.kron(coarse.reshape(size // 4, -1), np.ones((4, 4), np.int64))
            light, dark = noise, 25 - noise
        case "leather":
            gloss = np.maximum(0, 70 - 2 * abs(across + down // 3 - size // 2))
            light, dark = gloss, nothing + 14
        case "velvet":
            fold = (across + down) % 64
            light, dark = np.minimum(fold, 64 - fold), 32 - np.minimum(fold, 64 - fold)
        case "oak":
            grain = (down * 2 + (across * across // size) // 3) % 24
            light, dark = nothing + 6, (grain < 7) * 34
        case _:
            sheen = (across + down) % 128
            light, dark = np.maximum(0, 86 - 3 * abs(sheen - 64)), nothing + 6
    return _mask(light), _mask(dark)


def _mask(values: NDArray[np.int64]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))
