"""Duplicate items: finds items that are listed twice (same text, visually equal image, same other content).

A duplicate in the same batch would be a false negative. Duplicates share a group number, and the objectives
mask a query's duplicates in its softmax as they do the item itself.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.hashing import hash64
from catalog.progress import track

FIELDS = (8, 7)
"""Columns and rows an image is reduced to; neighbours in a row are compared."""
FIELDS_APART = 4
"""How many of the 49 comparisons may differ between two copies of one image."""
BANDS = FIELDS_APART + 2
"""Bands of the bits: hashes at most `FIELDS_APART` bits apart have two bands in common."""
BAND_BITS = 9
COLOURS_APART = 10
"""How far, of 255 levels, each channel's mean may differ: the same shirt in red is another item."""


def duplicate_groups(
    num_items: int,
    item_text: Callable[[int], str | None],
    picture_of: Callable[[int], NDArray[np.uint8] | None],
    others: NDArray[np.uint64] | None = None,
) -> NDArray[np.int64]:
    """A group number for each item, int64 (num_items,): equal for duplicates, otherwise distinct.

    Duplicates have texts that differ at most in case and spaces, images that differ at most by scaling and
    recompression (or no images), and the same number in `others` (num_items,), a hash of all other
    content. An item without text is never a duplicate, because plain backgrounds look alike. Takes one
    pass and 40 bytes per item.
    """
    texts = np.zeros(num_items, dtype=np.uint64)
    prints = np.zeros(num_items, dtype=np.uint64)
    colours = np.full((num_items, 3), np.nan, dtype=np.float32)  # nan: no picture
    for item in track(range(num_items), "Finding duplicate items"):
        text, picture = item_text(item), picture_of(item)
        if text:
            texts[item] = text_hash(text)
        if text and picture is not None:
            prints[item], colours[item] = difference_hash(picture)
    rest = np.zeros(num_items, dtype=np.uint64) if others is None else others
    groups = np.arange(num_items, dtype=np.int64)
    order = np.lexsort((rest, texts))  # stable: equal ones stay in the items' order
    changes = (np.diff(texts[order]) != 0) | (np.diff(rest[order]) != 0)
    for members in np.split(order, np.flatnonzero(changes) + 1):
        if len(members) > 1 and texts[members[0]]:
            groups[members] = _join(members, prints, colours)
    return groups


def _join(
    members: NDArray[np.int64], prints: NDArray[np.uint64], colours: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Assigns each of `members`, which differ at most in their images, to the first with a similar image.

    Only images whose hashes share two bands, and whose mean red is about equal, are compared.
    """
    alike: dict[tuple[int, int, int], list[int]] = {}
    without_picture = -1
    joined = np.empty(len(members), dtype=np.int64)
    for place, item in enumerate(members.tolist()):
        if np.isnan(colours[item, 0]):
            without_picture = item if without_picture < 0 else without_picture
            joined[place] = without_picture
            continue
        shade, pairs = (
            int(colours[item, 0] // COLOURS_APART),
            list(_pairs_of_bands(int(prints[item]))),
        )
        candidates = {
            leader
            for near in (shade - 1, shade, shade + 1)
            for pair in pairs
            for leader in alike.get((near, *pair), ())
        }
        known = np.array(sorted(candidates), dtype=np.int64)
        apart = np.bitwise_count(prints[known] ^ prints[item])
        near = np.abs(colours[known] - colours[item]).max(axis=1, initial=0) <= COLOURS_APART
        same = known[(apart <= FIELDS_APART) & near]
        joined[place] = same[0] if len(same) else item
        if not len(same):
            for pair in pairs:
                alike.setdefault((shade, *pair), []).append(item)
    return joined


def _pairs_of_bands(bits: int) -> Iterator[tuple[int, int]]:
    """A key for each pair of bands."""
    for pair, (one, other) in enumerate(combinations(range(BANDS), 2)):
        high, low = (bits >> (BAND_BITS * band) & ((1 << BAND_BITS) - 1) for band in (one, other))
        yield pair, high << BAND_BITS | low


def mix_hash(key: int, content: bytes) -> int:
    """The 64-bit hash of `key` and `content` together."""
    return hash64(key.to_bytes(8, "big") + content)


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, never 0; equal for texts that differ in case and spaces alone."""
    return hash64(normalize_text(text).encode()) | 1


def normalize_text(text: str) -> str:
    return " ".join(text.casefold().split())


def difference_hash(picture: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32]]:
    """The 49-bit difference hash of an image (height, width, 3), and each channel's mean."""
    grey = Image.fromarray(picture).convert("L").resize(FIELDS, Image.Resampling.BOX)
    lighter = np.diff(np.asarray(grey, dtype=np.int16), axis=1) > 0
    bits = int.from_bytes(np.packbits(lighter).tobytes(), "big") >> (-lighter.size % 8)
    return bits, picture.mean(axis=(0, 1), dtype=np.float32)
