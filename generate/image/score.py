"""Scores the personalization of images: conditioned on the user, on another user, and unconditionally.

Images are sampled by the same `ImageSampler` that serves requests. Ground truth, where it is known, is
passed as readings of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.catalog import Catalog
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from generate.conditioning import CONDITIONS, Condition, Ranker
from generate.evaluation.intervals import Figures
from generate.evaluation.readings import Reading, reading_hits
from generate.evaluation.users import EvaluationUsers
from generate.image.config import SamplingConfig
from generate.image.sampler import ImageSampler, Progress
from generate.image.siblings import Siblings

NUM_RECENT = 8
"""Latest items of a history whose images represent the user."""
COLOUR_LEVELS = 4
"""Levels of each colour channel in a histogram."""
Images = Mapping[Condition, Sequence[Image.Image]]
"""One image for each user, under each condition."""
ImageReadings = Mapping[str, Reading[NDArray[np.uint8]]]
"""Name → label to read from an image, and its true value for the user."""


def score_images(
    sampler: ImageSampler,
    users: EvaluationUsers,
    config: SamplingConfig | None = None,
    readings: ImageReadings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Figures:
    """Scores of three images for each of `users`, by rules on pixels (see `score_pixels`)."""
    items = sample_siblings(sampler.ranker, sampler.catalog, users.items, seed)
    images = sample_under_conditions(sampler, users, items, config, seed, progress)
    return score_pixels(images, sampler.catalog, users, readings or {})


def sample_siblings(
    ranker: Ranker, catalog: Catalog, items: NDArray[np.integer], seed: int = 0
) -> NDArray[np.int64]:
    """Another item of the same category for each of `items` (num_users,).

    As the item condition it reveals neither colours nor pattern of the true next item.
    """
    siblings = Siblings(catalog.items["category"], ranker.item_vectors, seed)
    return siblings.sample(np.asarray(items), np.random.default_rng(seed))


def sample_under_conditions(
    sampler: ImageSampler,
    users: EvaluationUsers,
    items: NDArray[np.integer],
    config: SamplingConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[Condition, list[Image.Image]]:
    """An image of each item (num_users,) under each condition, from the same noise."""
    rows, seeds = items.tolist(), range(seed, seed + len(items))
    settings = config or sampler.defaults
    return {
        condition: sampler.generate_unmarked(
            users.states[condition], rows, seeds, settings, progress
        )
        for condition in CONDITIONS
    }


def score_pixels(
    images: Images, catalog: Catalog, users: EvaluationUsers, readings: ImageReadings
) -> Figures:
    """Metrics of images by rules on their pixels.

    Returns {"num_users", "metrics": {name: {"own", "swapped", "none", "contrast": intervals over users,
    "contrast_name", "higher_is_better", "num_users"}}}.
    """
    pixels: dict[Condition, list[NDArray[np.uint8]]] = {
        name: [np.asarray(one) for one in each] for name, each in images.items()
    }
    metrics: dict[str, Figures] = {
        f"{name} of the user is in the image": compare_users(
            reading_hits(reading, users, pixels), "own / swapped"
        )
        for name, reading in readings.items()
    }
    for name, items in (
        ("Colours shared with earlier purchases", recent_items(users)),
        ("Colours shared with the next purchase", [[item] for item in users.items.tolist()]),
    ):
        metrics[name] = compare_colours(images, catalog, items)
    return {
        "num_users": len(users.users),
        "metrics": {name: figures for name, figures in metrics.items() if figures},
    }


def recent_items(users: EvaluationUsers) -> list[list[int]]:
    """The latest items of each user's history."""
    return [history[-NUM_RECENT:].tolist() for history in users.histories]


def compare_colours(images: Images, catalog: Catalog, items: Sequence[Sequence[int]]) -> Figures:
    """Histogram intersection (Swain & Ballard 1991), 0 … 1, with the images of `items` (num_users,).

    Users none of whose items have an image are left out.
    """
    width, height = images["own"][0].size
    targets: dict[int, NDArray[np.float64]] = {}
    for index, rows in enumerate(items):
        pictures = [catalog.item_image(row, (height, width)) for row in rows]
        histograms = [colour_histogram(picture) for picture in pictures if picture is not None]
        if histograms:
            targets[index] = np.mean(histograms, axis=0)
    intersections: dict[Condition, NDArray[np.float64]] = {
        condition: np.array(
            [
                np.minimum(colour_histogram(np.asarray(each[index])), target).sum()
                for index, target in targets.items()
            ]
        )
        for condition, each in images.items()
    }
    return compare_users(intersections, "own − swapped")


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Fractions (COLOUR_LEVELS³,) of an image (height, width, 3) by colour; they sum to 1."""
    levels = pixels.reshape(-1, 3).astype(np.int64) * COLOUR_LEVELS // 256
    codes = (levels[:, 0] * COLOUR_LEVELS + levels[:, 1]) * COLOUR_LEVELS + levels[:, 2]
    return np.bincount(codes, minlength=COLOUR_LEVELS**3) / len(codes)


def compare_users(values: Mapping[Condition, NDArray[np.float64]], contrast_name: str) -> Figures:
    """Means of `values` (num_users,) under each condition, and a contrast of own and swapped; empty for
    fewer than 2 users."""
    own, swapped = values["own"], values["swapped"]
    if len(own) < 2:
        return {}
    contrast: Callable[..., Interval] = (
        ratio_interval if "/" in contrast_name else difference_interval
    )
    return {
        **{condition: asdict(mean_interval(column)) for condition, column in values.items()},
        "contrast": asdict(contrast(own, swapped)),
        "contrast_name": contrast_name,
        "higher_is_better": True,
        "num_users": len(own),
    }
