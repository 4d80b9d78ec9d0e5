"""Scores drawn pictures against controls: own person, another person, nobody; the same item and noise.

Knows nothing about a made-up world: truth comes in, if at all, as a function that reads a picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Targets
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from generate.conditioning import Shop, swap_partners
from generate.image.config import DrawConfig
from generate.image.draw import draw_with
from generate.image.pipeline import PersonalImagePipeline
from generate.image.siblings import Siblings

Reader = Callable[[NDArray[np.uint8]], Any]
"""Pixels (size, size, 3) → what is seen there, comparable with a person's label."""
RECENT = 8
"""Latest pictures of a history that stand for the person."""
LEVELS = 4
"""Levels of each colour channel in a histogram."""


@dataclass(frozen=True)
class Draws:
    """The same requests drawn three times."""

    items: NDArray[np.int64]
    """(people,): what was asked for, by item row."""
    partners: NDArray[np.int64]
    """(people,): place of the person whose state drew the swapped picture."""
    own: list[Image.Image]
    swapped: list[Image.Image]
    nobody: list[Image.Image]


@dataclass(frozen=True)
class Contrast:
    """One measure, higher is more alike, for the three ways of drawing; 95 % intervals over people."""

    own: Interval
    swapped: Interval
    nobody: Interval
    own_minus_swapped: Interval
    own_minus_nobody: Interval
    own_over_swapped: Interval


@dataclass(frozen=True)
class ImageScores:
    people: int
    history: Contrast
    """Likeness of colours to the pictures of what the person bought before."""
    next_item: Contrast
    """Likeness of colours to the picture of what the person bought next."""
    reading: Contrast | None = None
    """Share of the pictures in which the reader sees the person's own label."""
    settings: DrawConfig = field(default_factory=DrawConfig)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def draw_controls(
    pipeline: PersonalImagePipeline,
    shop: Shop,
    histories: Sequence[NDArray[np.integer]],
    items: NDArray[np.integer],
    config: DrawConfig,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """Draws each person's item with their own state, with another's, and with none.

    All three of a request start from the same noise.
    """
    count = len(histories)
    partners = swap_partners(np.arange(count), config.seed)
    asked: list[NDArray[np.integer] | None] = [
        *histories,
        *(histories[place] for place in partners),
        *([None] * count),
    ]
    seeds = [config.seed + place for place in range(count)] * 3
    wanted = [int(item) for item in items] * 3
    pictures = draw_with(pipeline, shop, asked, wanted, config, seeds, progress)
    return Draws(
        np.asarray(items, dtype=np.int64),
        partners,
        pictures[:count],
        pictures[count : 2 * count],
        pictures[2 * count :],
    )


def score_pictures(
    pipeline: PersonalImagePipeline,
    shop: Shop,
    catalog: Catalog,
    targets: Targets,
    config: DrawConfig,
    num_people: int = 200,
    reader: Reader | None = None,
    labels: Sequence[Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[ImageScores, Draws]:
    """Scores pictures drawn for people whose next item is known.

    `targets` are such as a split's test targets; `num_people` of them are chosen by the seed. Each
    is asked for by another item of the next item's kind, so that the item's vector gives away no
    colours. `labels` says, for each of the catalog's people, what `reader` ought to see in pictures
    drawn for them.
    """
    users, positions = _choose(catalog, targets, num_people, config)
    histories = [catalog.interactions.history(u)[:p] for u, p in zip(users, positions, strict=True)]
    following = np.array(
        [catalog.interactions.history(u)[p] for u, p in zip(users, positions, strict=True)]
    )
    siblings = Siblings(catalog.items["category"], shop.item_vectors, config.seed)
    items = siblings.pick(following, np.random.default_rng(config.seed))
    draws = draw_controls(pipeline, shop, histories, items, config, progress)
    reading = None
    if reader is not None and labels is not None:
        reading = reading_contrast(draws, reader, [labels[user] for user in users], config.seed)
    size = draws.own[0].width
    before = [_mean_histogram(catalog, h[-RECENT:], size) for h in histories]
    after = [_mean_histogram(catalog, row[None], size) for row in following]
    scores = ImageScores(
        people=len(users),
        history=_likeness(draws, before, config.seed),
        next_item=_likeness(draws, after, config.seed),
        reading=reading,
        settings=config,
    )
    return scores, draws


def reading_contrast(
    draws: Draws, reader: Reader, labels: Sequence[Any], seed: int = 0
) -> Contrast:
    """How often `reader` sees the person's own label (people,) in each of the three pictures."""

    def hits(pictures: list[Image.Image]) -> NDArray[np.float64]:
        seen = [reader(np.asarray(picture)) for picture in pictures]
        return np.array([s == label for s, label in zip(seen, labels, strict=True)], np.float64)

    return _contrast(hits(draws.own), hits(draws.swapped), hits(draws.nobody), seed)


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares (LEVELS³,) of a picture (size, size, 3) by colour; sums to 1."""
    levels = pixels.reshape(-1, 3).astype(np.int64) * LEVELS // 256
    codes = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    return np.bincount(codes, minlength=LEVELS**3) / len(codes)


def _choose(
    catalog: Catalog,
    targets: Targets,
    num_people: int,
    config: DrawConfig,
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """(users, positions) chosen by the seed, with a history before and a picture to compare."""
    chosen: list[int] = []
    for row in np.random.default_rng(config.seed).permutation(len(targets)):
        history = catalog.interactions.history(int(targets.users[row]))
        position = int(targets.positions[row])
        if position > 0 and catalog.image_of(int(history[position]), 16) is not None:
            chosen.append(int(row))
        if len(chosen) == num_people:
            break
    if len(chosen) < 2:
        raise VitrineError(
            f"{len(chosen)} people have a history and a next item with a picture; scoring swaps "
            "people, so it needs two or more."
        )
    return targets.users[chosen], targets.positions[chosen]


def _mean_histogram(
    catalog: Catalog, items: NDArray[np.integer], size: int
) -> NDArray[np.float64] | None:
    pictures = [catalog.image_of(int(item), size) for item in items]
    histograms = [colour_histogram(picture) for picture in pictures if picture is not None]
    return np.mean(histograms, axis=0) if histograms else None


def _likeness(draws: Draws, wanted: list[NDArray[np.float64] | None], seed: int) -> Contrast:
    """Histogram intersection (Swain & Ballard 1991), 0 … 1, over people with something to compare."""
    known = {row: histogram for row, histogram in enumerate(wanted) if histogram is not None}

    def overlaps(pictures: list[Image.Image]) -> NDArray[np.float64]:
        seen = {row: colour_histogram(np.asarray(pictures[row])) for row in known}
        return np.array([np.minimum(seen[row], known[row]).sum() for row in known])

    return _contrast(overlaps(draws.own), overlaps(draws.swapped), overlaps(draws.nobody), seed)


def _contrast(
    own: NDArray[np.float64], swapped: NDArray[np.float64], nobody: NDArray[np.float64], seed: int
) -> Contrast:
    return Contrast(
        own=mean_interval(own, seed),
        swapped=mean_interval(swapped, seed),
        nobody=mean_interval(nobody, seed),
        own_minus_swapped=difference_interval(own, swapped, seed),
        own_minus_nobody=difference_interval(own, nobody, seed),
        own_over_swapped=ratio_interval(own, swapped, seed),
    )
