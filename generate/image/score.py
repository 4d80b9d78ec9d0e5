"""Does a picture fit its person? Draws each item for the own person, a swapped one, and nobody.

Knows nothing about a made-up world: truth comes in, if at all, as functions that read a picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from catalog.catalog import Catalog
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from generate.conditioning import Shop
from generate.image.config import DrawConfig
from generate.image.pipeline import PersonalImagePipeline
from generate.image.siblings import Siblings

TOLD = ("own", "swapped", "none")
RECENT = 8
"""Latest pictures of a history that stand for the person."""
LEVELS = 4
"""Levels of each colour channel in a histogram."""
Pictures = Mapping[str, list[Image.Image]]
"""For each of TOLD, one picture a person."""


class People(Protocol):
    """Test targets, one a person, as `generate.text.score.choose_people` finds them."""

    users: NDArray[np.integer]
    histories: Sequence[NDArray[np.integer]]
    items: NDArray[np.integer]
    states: dict[str, Tensor]
    """float32 (people, width) for each of TOLD."""


class Reading(Protocol):
    """Something a picture should show its person."""

    read: Callable[[NDArray[np.uint8]], Any]
    """Pixels (size, size, 3) → label."""
    labels: list[Any]
    """(num_users,): what each of the catalog's people should find; None leaves a person out."""


def score_pictures(
    pipeline: PersonalImagePipeline,
    shop: Shop,
    catalog: Catalog,
    people: Any,
    config: DrawConfig | None = None,
    *,
    readings: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Figures over `people` (see `People`), three pictures each; `readings` maps names to `Reading`.

    Everybody is drawn another item of their next item's kind, so that the item's vector gives away
    neither colours nor pattern. Returns {"people": count, "measures": {name: {"own", "swapped",
    "none", "contrast": intervals over people, "contrast_name", "higher_is_better", "people"}}}.
    """
    items = ask_for_siblings(shop, catalog, people.items, seed)
    drawn = draw_for(pipeline, shop, people.states, items, config or DrawConfig(), seed, progress)
    users = [int(user) for user in people.users]
    histories = [history[-RECENT:] for history in people.histories]
    measures: dict[str, Any] = {}
    for name, reading in (readings or {}).items():
        labels = [reading.labels[user] for user in users]
        figures = measure_reading(drawn, reading.read, labels)
        measures[f"{name} of the person is in the picture"] = figures
    for name, looks in (
        ("Colours shared with what they bought before", histories),
        ("Colours shared with what they bought next", [[item] for item in people.items]),
    ):
        measures[name] = measure_colours(drawn, catalog, looks)
    return {
        "people": len(users),
        "measures": {name: figures for name, figures in measures.items() if figures},
    }


def ask_for_siblings(
    shop: Shop, catalog: Catalog, items: NDArray[np.integer], seed: int = 0
) -> NDArray[np.int64]:
    """Another item of the same kind for each of `items` (people,)."""
    siblings = Siblings(catalog.items["category"], shop.item_vectors, seed)
    return siblings.pick(np.asarray(items), np.random.default_rng(seed))


def draw_for(
    pipeline: PersonalImagePipeline,
    shop: Shop,
    states: Mapping[str, Tensor],
    items: NDArray[np.integer],
    config: DrawConfig,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, list[Image.Image]]:
    """Each item (people,) drawn under each of TOLD's states, from the same noise every time."""
    vectors = torch.from_numpy(np.array(shop.item_vectors[items]))
    return {
        told: pipeline(
            states[told],
            vectors,
            list(range(seed, seed + len(items))),
            user_scale=config.user_scale,
            item_scale=config.item_scale,
            guide_above=config.guide_above,
            steps=config.steps,
            batch_size=config.batch_size,
            progress=progress,
        )
        for told in TOLD
    }


def measure_reading(
    drawn: Pictures, read: Callable[[NDArray[np.uint8]], Any], labels: Sequence[Any]
) -> dict[str, Any]:
    """Shares of the people (people,) whose label is read in their picture."""
    known = [place for place, label in enumerate(labels) if label is not None]
    return _figures(
        {
            told: np.array(
                [read(np.asarray(pictures[place])) == labels[place] for place in known], float
            )
            for told, pictures in drawn.items()
        },
        "own / swapped",
    )


def measure_colours(
    drawn: Pictures, catalog: Catalog, looks: Sequence[Sequence[int] | NDArray[np.integer]]
) -> dict[str, Any]:
    """Histogram intersection (Swain & Ballard 1991), 0 … 1, with the pictures of `looks` (people,).

    People none of whose items have a picture are left out.
    """
    size = drawn["own"][0].width
    wanted: dict[int, NDArray[np.float64]] = {}
    for place, items in enumerate(looks):
        pictures = [catalog.image_of(int(item), size) for item in items]
        found = [colour_histogram(picture) for picture in pictures if picture is not None]
        if found:
            wanted[place] = np.mean(found, axis=0)
    return _figures(
        {
            told: np.array(
                [
                    np.minimum(colour_histogram(np.asarray(pictures[place])), histogram).sum()
                    for place, histogram in wanted.items()
                ]
            )
            for told, pictures in drawn.items()
        },
        "own − swapped",
    )


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares (LEVELS³,) of a picture (size, size, 3) by colour; sums to 1."""
    levels = pixels.reshape(-1, 3).astype(np.int64) * LEVELS // 256
    codes = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    return np.bincount(codes, minlength=LEVELS**3) / len(codes)


def _figures(values: Mapping[str, NDArray[np.float64]], contrast_name: str) -> dict[str, Any]:
    """`values` (people,) for each of TOLD, as means and a contrast; empty for fewer than 2 people."""
    own, swapped = values["own"], values["swapped"]
    if len(own) < 2:
        return {}
    contrast: Callable[..., Interval] = (
        ratio_interval if "/" in contrast_name else difference_interval
    )
    return {
        **{told: asdict(mean_interval(column)) for told, column in values.items()},
        "contrast": asdict(contrast(own, swapped)),
        "contrast_name": contrast_name,
        "higher_is_better": True,
        "people": len(own),
    }
