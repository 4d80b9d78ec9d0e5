"""Draws pictures on request: names of people and items in, marked pictures out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from generate.conditioning import Shop
from generate.image.config import DrawConfig
from generate.image.pipeline import PersonalImagePipeline

DRAW_DEFAULTS = "draw.json"
MARK = {
    "Software": "vitrine",
    "DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
"""Says in the file itself that nobody photographed this (IPTC's vocabulary)."""


def load_image_generator(folder: str | Path) -> tuple[PersonalImagePipeline, DrawConfig]:
    """A verified image-generator artifact: its pipeline, and the settings it likes to draw with."""
    if not str(folder):
        raise VitrineError(
            "no image generator given; pass the folder that `vitrine generate image-train` made."
        )
    artifact = open_artifact(Path(folder), kind="image-generator")
    pipeline = PersonalImagePipeline.from_pretrained(artifact.path)
    defaults = DrawConfig(**json.loads((artifact.path / DRAW_DEFAULTS).read_text()))
    return pipeline, defaults


def draw(
    generator: str | Path,
    shop: Shop,
    histories: Sequence[NDArray[np.integer] | None],
    items: Sequence[int | None],
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> list[Image.Image]:
    """A picture of each item for the person with each history; None leaves a condition out.

    `settings` overrule the generator's own `DrawConfig`. The n-th request is drawn from noise of
    seed + n. `progress` is told how many pictures each batch finished.
    """
    pipeline, defaults = load_image_generator(generator)
    chosen = replace(defaults, **settings, **({} if seed is None else {"seed": seed}))
    return draw_with(pipeline, shop, histories, items, chosen, progress=progress)


def draw_with(
    pipeline: PersonalImagePipeline,
    shop: Shop,
    histories: Sequence[NDArray[np.integer] | None],
    items: Sequence[int | None],
    config: DrawConfig,
    seeds: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """`draw` with a pipeline at hand and, if wished, each picture's own seed."""
    if len(histories) != len(items):
        raise ValueError(f"{len(histories)} histories for {len(items)} items; give one for each.")
    if pipeline.width != shop.width:
        raise VitrineError(
            f"the image generator reads vectors of width {pipeline.width}, the recommender's have "
            f"{shop.width}; give the recommender that the generator was trained with."
        )
    nobody = np.empty(0, dtype=np.int64)
    states = shop.user_states([nobody if h is None else h for h in histories])
    vectors = np.zeros((len(items), shop.width), dtype=np.float32)
    for row, item in enumerate(items):
        if item is not None:
            vectors[row] = shop.item_vectors[item]
    return pipeline(
        states,
        torch.from_numpy(vectors),
        list(range(config.seed, config.seed + len(items))) if seeds is None else seeds,
        user_scale=config.user_scale,
        item_scale=config.item_scale,
        steps=config.steps,
        batch_size=config.batch_size,
        progress=progress,
    )


def save_picture(picture: Image.Image, file: Path, config: DrawConfig, **about: str) -> None:
    """Writes a PNG whose text chunks say that it was generated, with what settings, and `about`."""
    info = PngInfo()
    for name, value in {**MARK, "Settings": json.dumps(asdict(config)), **about}.items():
        info.add_text(name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, format="PNG", pnginfo=info)
