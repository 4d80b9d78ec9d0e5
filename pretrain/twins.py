"""Finds items that are listed twice: the same words and, to the eye, the same picture.

A twin drawn into the same batch would be a negative that deserves to win. Twins share a number, and
the objectives leave a query's twins out of its softmax as they do the item itself.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.progress import track

FIELDS = (8, 7)
"""Columns and rows a picture is reduced to; neighbours in a row are compared."""
FIELDS_APART = 4
"""So many of the 49 comparisons may differ between two copies of one picture."""
COLOURS_APART = 10
"""So many of 255 levels may each channel's mean differ: the same shirt in red is another item."""


def twin_groups(
    num_items: int,
    text_of: Callable[[int], str | None],
    picture_of: Callable[[int], NDArray[np.uint8] | None],
) -> NDArray[np.int64]:
    """int64 (num_items,): equal for twins, otherwise distinct. One pass; memory 32 bytes an item.

    Twins have the same words but for case and spaces, and pictures alike but for scaling and
    recompression, or both none. Of items without words none is taken for a twin: a plain ground
    looks like another.
    """
    texts = np.zeros(num_items, dtype=np.uint64)
    prints = np.zeros(num_items, dtype=np.uint64)
    colours = np.full((num_items, 3), np.nan, dtype=np.float32)  # nan: no picture
    for item in track(range(num_items), "Looking for twins"):
        text, picture = text_of(item), picture_of(item)
        if text:
            texts[item] = text_key(text)
        if text and picture is not None:
            prints[item], colours[item] = fingerprint(picture)
    groups = np.arange(num_items, dtype=np.int64)
    order = np.argsort(texts, kind="stable")
    same = np.split(order, np.flatnonzero(np.diff(texts[order])) + 1)
    for members in same:
        if len(members) > 1 and texts[members[0]]:
            groups[members] = _gather_twins(members, prints, colours)
    return groups


def _gather_twins(
    members: NDArray[np.int64], prints: NDArray[np.uint64], colours: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Each of `members`, which share their words, joins the first one it looks like."""
    leaders: list[int] = []
    joined = np.empty(len(members), dtype=np.int64)
    for place, item in enumerate(members.tolist()):
        known = np.array(leaders, dtype=np.int64)
        apart = np.bitwise_count(prints[known] ^ prints[item])
        blind = np.isnan(colours[known, 0]) & np.isnan(colours[item, 0])
        near = np.abs(colours[known] - colours[item]).max(axis=1, initial=0) <= COLOURS_APART
        alike = np.flatnonzero(blind | ((apart <= FIELDS_APART) & near))
        if not len(alike):
            leaders.append(item)
        joined[place] = leaders[alike[0]] if len(alike) else item
    return joined


def text_key(text: str) -> int:
    """64 bits, never 0."""
    words = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") | 1


def fingerprint(picture: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32]]:
    """Of a picture (height, width, 3): 49 bits of difference hash, and each channel's mean."""
    grey = Image.fromarray(picture).convert("L").resize(FIELDS, Image.Resampling.BOX)
    lighter = np.diff(np.asarray(grey, dtype=np.int16), axis=1) > 0
    bits = int.from_bytes(np.packbits(lighter).tobytes(), "big")
    return bits, picture.mean(axis=(0, 1), dtype=np.float32)
