"""Checks of images: broken, copied, flat, tiny, stretched, and images that do not fit their text."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.doctor.context import Context
from catalog.doctor.finding import NAMED, Finding, finding
from catalog.doctor.look_alike import residuals, same_photo
from catalog.doctor.picture_scan import without_padding
from catalog.doctor.similar import Pairs, distinct_pairs, hamming_pairs, in_chunks
from catalog.progress import track

NEAR_BITS = 20
"""Bits of 128 in which hashes of near-duplicate images differ at most."""
NEAR_RESIDUAL = 0.2
"""What remains of their thumbnails' difference after alignment, as a share of the smaller contrast."""
NEAR_SHAPES = 0.15
"""Relative difference of their aspect ratios at most."""
LEAST_LIKENESS = 0.77
"""Correlation of their details at least; see `look_alike.same_photo`."""
MOST_COMPARED = 20_000
"""Pairs that are compared in detail, those with the smallest residuals first."""
DETAIL = 192
"""Size at which they are read for that."""
DECODED = 1024
"""Images that are kept decoded meanwhile."""
FLAT = 2.0
"""Standard deviation of each colour channel, of 255, below which an image is flat."""
TINY = 64
EXTREME = 4.0
PLACEHOLDER_ITEMS, PLACEHOLDER_SHARE = 5, 0.01


def broken_images(context: Context) -> Iterable[Finding]:
    _ = context.pictures  # decodes them
    broken = context.catalog.broken_images
    if not broken:
        return []
    named = "; ".join(
        f"{_image_name(context, item)}: {reason}" for item, reason in list(broken.items())[:NAMED]
    )
    rows = np.sort(np.fromiter(broken, np.int64))
    return [
        finding(
            "broken-images",
            f"{len(broken):,} images cannot be read ({named})",
            count=len(broken),
            examples=tuple(context.item_ids(list(broken)[:NAMED])),
            unit="items",
            rows=rows,
        )
    ]


def _image_name(context: Context, item: int) -> str:
    path = Path(context.catalog.items[item]["image"])
    return path.relative_to(context.catalog.folder.resolve()).as_posix()


def shared_images(context: Context) -> Iterable[Finding]:
    """Items with the same file, and files that so many share that they are placeholders."""
    pictures = context.pictures
    _, groups, counts = np.unique(pictures.digests, return_inverse=True, return_counts=True)
    if not len(counts) or counts.max() < 2:
        return
    largest = pictures.items[groups == counts.argmax()]
    rows = pictures.items[counts[groups] > 1]
    sentence = "{n} items share their image with another"
    yield from context.found("duplicate-images", rows, sentence, first=largest)
    most = max(PLACEHOLDER_ITEMS, PLACEHOLDER_SHARE * len(groups))
    rows = pictures.items[counts[groups] >= most]
    sentence = "{n} items have an image that so many share that it is a placeholder"
    yield from context.found("placeholder-images", rows, sentence, first=largest)


def near_duplicate_images(context: Context) -> Iterable[Finding]:
    """Different files that look the same; flat images are left out."""
    pictures = context.pictures
    _, first, groups = np.unique(pictures.digests, return_index=True, return_inverse=True)
    kept = np.sort(first)
    kept = kept[pictures.spreads[kept] >= FLAT]
    pairs = kept[hamming_pairs(pictures.hashes[kept], NEAR_BITS)]
    scored = [_coarsely_alike(context, part) for part in in_chunks(pairs)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(some for some, _ in scored)])
    order = np.argsort(np.concatenate([np.empty(0), *(rest for _, rest in scored)]), kind="stable")
    near = distinct_pairs(_alike_in_detail(context, pairs[order[:MOST_COMPARED]]))
    rows = pictures.items[np.isin(groups, groups[near])]
    least = " at least" if len(pairs) > MOST_COMPARED else ""
    sentence = f"{{n}} items{least} have an image that looks like another's, in another file"
    pair = pictures.items[near[:1].reshape(-1)]
    return context.found("near-duplicate-images", rows, sentence, first=pair)


def _coarsely_alike(context: Context, pairs: Pairs) -> tuple[Pairs, NDArray[np.float64]]:
    """The pairs whose thumbnails and aspect ratios agree, and the residual of each."""
    pictures = context.pictures
    ratios = np.log(pictures.shapes[:, 0] / pictures.shapes[:, 1])
    pairs = pairs[np.abs(ratios[pairs[:, 0]] - ratios[pairs[:, 1]]) <= NEAR_SHAPES]
    left, right = (pictures.thumbnails[side].astype(np.float64) for side in pairs.T)
    rest = residuals(left, right)
    return pairs[rest <= NEAR_RESIDUAL], rest[rest <= NEAR_RESIDUAL]


def _alike_in_detail(context: Context, pairs: Pairs) -> Pairs:
    """The pairs whose images, read again, agree in their details."""
    pictures, catalog = context.pictures, context.catalog

    @lru_cache(maxsize=DECODED)
    def content(place: int) -> NDArray[np.uint8] | None:
        pixels = catalog.item_image(int(pictures.items[place]), DETAIL)
        if pixels is None:
            return None
        height, width = pictures.shapes[place].tolist()
        inside = without_padding(pixels, (height, width))
        if max(height, width) < DETAIL:  # what was enlarged has no more details
            inside = np.asarray(Image.fromarray(inside).resize((width, height)))
        return inside

    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    alike = np.zeros(len(pairs), bool)
    for number, (left, right) in enumerate(track(pairs.tolist(), "Comparing images")):
        one, other = content(left), content(right)
        if one is not None and other is not None:
            alike[number] = same_photo(one, other, LEAST_LIKENESS)
    return pairs[alike]


def flat_images(context: Context) -> Iterable[Finding]:
    rows = context.pictures.items[context.pictures.spreads < FLAT]
    return context.found("flat-images", rows, "{n} images are one flat colour")


def odd_shapes(context: Context) -> Iterable[Finding]:
    """Tiny images, and images of an extreme aspect ratio."""
    items, shapes = context.pictures.items, context.pictures.shapes
    if not len(items):
        return
    low, high = shapes.min(axis=1), shapes.max(axis=1)
    tiny = items[low < TINY]
    yield from context.found("tiny-images", tiny, f"{{n}} images have a side below {TINY} pixels")
    rows = items[high > EXTREME * low]
    sentence = f"{{n}} images are more than {EXTREME:g} times as long as wide"
    yield from context.found("extreme-aspect", rows, sentence)


def mismatched_images(context: Context) -> Iterable[Finding]:
    """Items whose image and text belong to different items by the encoder that was given."""
    shares: NDArray[np.float32] | None = context.mismatch
    if shares is None:
        return []
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(shares > 0.5)
    worst = rows[np.argsort(-shares[rows], kind="stable")]
    sentence = "{n} images fit their text worse than half of the other images"
    return context.found("image-text-mismatch", rows, sentence, first=worst)


CHECKS = (
    broken_images,
    shared_images,
    near_duplicate_images,
    flat_images,
    odd_shapes,
    mismatched_images,
)
