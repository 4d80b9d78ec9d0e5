"""The contact sheet: for a few users, what they bought beside images of an item under each condition."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image, ImageDraw

from generate.conditioning import CONDITIONS
from generate.evaluation.users import EvaluationUsers
from generate.image.config import ImageScoreConfig
from generate.image.sampler import ImageSampler
from generate.image.score import sample_siblings

NUM_PURCHASES = 4
CELL, GAP, HEAD = 128, 6, 22
"""Pixels: longer side of an image on the sheet, between images, and above the rows."""
Column = Sequence[Image.Image | None]


def contact_sheet(
    sampler: ImageSampler, users: EvaluationUsers, config: ImageScoreConfig
) -> Image.Image:
    """A row for each user: the latest purchases, the item, its concepts under each condition, and the item
    itself in front of a background generated for the user."""
    items = sample_siblings(sampler.ranker, sampler.catalog, users.items, config.seed).tolist()
    seeds = [config.seed] * len(items)
    columns: list[Column] = [
        *([_item_image(sampler, item) for item in rows] for rows in _latest_purchases(users)),
        [_item_image(sampler, item) for item in items],
    ]
    names = [*["bought"] * NUM_PURCHASES, "the item"]
    titles = ("for the user", "for another user", "unconditional")
    for condition, title in zip(CONDITIONS, titles, strict=True):
        sampled = sampler.sample_rows(users.states[condition], items, seeds, config.sampling)
        columns.append([one.image for one in sampled])
        names.append(title)
    creative = replace(config.sampling, mode="creative")
    sampled = sampler.sample_rows(users.states["own"], items, seeds, creative)
    columns.append([one.image for one in sampled])
    names.append("background")
    return _render(columns, names)


def _latest_purchases(users: EvaluationUsers) -> Iterator[list[int | None]]:
    for back in range(NUM_PURCHASES, 0, -1):
        yield [int(items[-back]) if len(items) >= back else None for items in users.histories]


def _item_image(sampler: ImageSampler, item: int | None) -> Image.Image | None:
    if item is None:
        return None
    pixels = sampler.catalog.item_image(item, sampler.pipeline.codec.buckets[0])
    return None if pixels is None else Image.fromarray(pixels)


def _render(columns: Sequence[Column], names: Sequence[str]) -> Image.Image:
    number = len(columns[0])
    tallest = max(
        CELL * image.height // max(image.size)
        for column in columns
        for image in column
        if image is not None
    )
    width = GAP + len(columns) * (CELL + GAP)
    sheet = Image.new("RGB", (width, HEAD + number * (tallest + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (column, name) in enumerate(zip(columns, names, strict=True)):
        left = GAP + index * (CELL + GAP)
        pen.text((left + CELL // 2, HEAD // 2), name, fill="black", anchor="mm")
        for row, image in enumerate(column):
            if image is None:
                continue
            scale = min(CELL / image.width, tallest / image.height)
            size = round(image.width * scale), round(image.height * scale)
            sheet.paste(
                image.resize(size, Image.Resampling.LANCZOS),
                (left + (CELL - size[0]) // 2, HEAD + row * (tallest + GAP)),
            )
    return sheet
