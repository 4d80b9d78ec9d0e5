"""Renders the image of one item: a product with its motif and material, its shadow and background.

Everything is drawn at four times the size from polygons with integer coordinates, then reduced by an integer
box filter, so that an image is the same on every machine.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from catalog.demo.patterns import TILE, motif_mask, texture_masks
from catalog.demo.products import HANGING, parts_of
from catalog.demo.random_stream import RandomStream
from catalog.demo.shapes import CIRCLE, Point
from catalog.demo.style import CATEGORIES, MATERIALS, MOODS, MOTIFS, PALETTES, Colour
from catalog.demo.world import Item

SIZE = 64
"""Width and height of a picture in pixels."""
SCALE = 4
"""How many times larger it is drawn."""
CANVAS = SIZE * SCALE
FLOOR = 190
"""Where the wall meets the floor in the home's pictures, in drawn pixels from the top."""
WALLPAPER = 26
"""Per cent of the main tone in the motif on the ground: seen, yet behind the product."""
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Pose:
    """Position, size and tilt of a product; lengths in drawn pixels."""

    size: int
    centre: tuple[int, int]
    tilt: int
    """64 times the tangent of half the angle, clockwise."""

    def place(self, point: Point) -> tuple[int, int]:
        """Maps a point of a product's box of 100 by 100 to the canvas, rotated about the box's centre."""
        t = self.tilt / 64
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        x, y = ((value - 50) * self.size / 100 for value in point)
        column = self.centre[0] + cosine * x - sine * y
        row = self.centre[1] + sine * x + cosine * y
        return int(column + 1000.5) - 1000, int(row + 1000.5) - 1000


def render_item(item: Item, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture (64, 64, 3) and the product's silhouette in it (64, 64)."""
    rng = RandomStream(seed, f"picture/{item.item_id}")
    category = CATEGORIES[item.domain][item.category]
    tones = _tones(item, rng)
    pose = _pose(item, category, rng)
    canvas = _ground(item, tones, rng)
    product, outline = _product(item, category, tones, pose, rng)
    _cast_shadow(canvas, outline, item.domain == "home" and category not in HANGING, pose, tones)
    box = outline.getbbox()
    canvas.paste(product.crop(box), box, outline.crop(box))
    picture = np.asarray(canvas.reduce(SCALE))
    silhouette = np.asarray(outline.reduce(SCALE)) >= 128
    return picture, silhouette


def _tones(item: Item, rng: RandomStream) -> dict[str, Colour]:
    """The palette's tones, slightly lighter or darker for each item."""
    palette = PALETTES[item.palette]
    ground = _towards(palette.ground, WHITE, rng.below(12))
    shade = rng.between(-9, 9)
    main = _towards(palette.main, WHITE if shade > 0 else BLACK, abs(shade))
    pale = rng.chance(60)
    return {
        "ground": ground,
        "tint": _towards(ground, palette.main, WALLPAPER),
        "floor": _towards(ground, palette.main, 17),
        "shadow": _towards(palette.ground, palette.accent, 66),
        "main": main,
        "accent": palette.accent,
        "figure": palette.ground if pale else _towards(palette.accent, palette.main, 12),
        "deep": _towards(main, palette.accent, 48),
        "light": _towards(palette.ground, WHITE, 55),
        "glint": WHITE,
        "flame": _towards(palette.ground, palette.main, 55),
    }


def _pose(item: Item, category: str, rng: RandomStream) -> Pose:
    size = rng.between(136, 160)
    left = CANVAS // 2 + rng.between(-9, 9)
    playful = MOODS[item.mood] == "playful"
    if item.domain == "wardrobe":
        tilt = rng.between(-7, 7) if playful else rng.between(-2, 2)
        return Pose(size + 14, (left, CANVAS // 2 + rng.between(-7, 5)), tilt)
    if category in HANGING:
        size = size * 9 // 10
        return Pose(size, (left, 98 + rng.between(-6, 6)), rng.between(-2, 2) if playful else 0)
    bottom = 222 + rng.between(-5, 7)
    return Pose(size, (left, bottom - size // 2), rng.between(-2, 2) if playful else 0)


def _ground(item: Item, tones: dict[str, Colour], rng: RandomStream) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS), tones["ground"])
    motif = _motif_at(MOTIFS[item.motif], rng)
    _paint(canvas, tones["tint"], motif)
    if item.domain == "home":
        canvas.paste(tones["floor"], (0, FLOOR, CANVAS, CANVAS))
        canvas.paste(tones["light"], (0, FLOOR - 6, CANVAS, FLOOR))
    # Light falls in from the upper left.
    canvas.paste(BLACK, mask=_fall_of_light(10))
    return canvas


def _motif_at(motif: str, rng: RandomStream) -> Image.Image:
    """The motif over a whole canvas, at a random shift of its repeat."""
    left, top = rng.below(TILE), rng.below(TILE)
    return motif_mask(motif).crop((left, top, left + CANVAS, top + CANVAS))


def _product(
    item: Item, category: str, tones: dict[str, Colour], pose: Pose, rng: RandomStream
) -> tuple[Image.Image, Image.Image]:
    """The painted product and its outline (mode L); outside the outline the colours mean nothing."""
    product = Image.new("RGB", (CANVAS, CANVAS), tones["main"])
    outline = Image.new("L", (CANVAS, CANVAS), 0)
    surface = Image.new("L", (CANVAS, CANVAS), 0)
    brushes = [ImageDraw.Draw(layer) for layer in (product, outline, surface)]
    motif = _motif_at(MOTIFS[item.motif], rng)
    for part in parts_of(category):
        points = [pose.place(point) for point in part.points]
        covers, carries = (0 if part.tone == "hole" else 255), (255 if part.patterned else 0)
        for brush, ink in zip(brushes, (tones.get(part.tone), covers, carries), strict=True):
            if ink is not None:
                brush.polygon(points, fill=ink)
        if part.patterned:
            where = ImageChops.multiply(_polygon(points), motif)
            _paint(product, tones["figure"], where)
    for colour, texture in zip(
        (WHITE, BLACK), texture_masks(MATERIALS[item.material], CANVAS), strict=True
    ):
        _paint(product, colour, ImageChops.multiply(surface, texture))
    _paint(product, BLACK, ImageChops.multiply(outline, _fall_of_light(52)))
    return product, outline


def _paint(layer: Image.Image, colour: Colour, mask: Image.Image) -> None:
    """Pastes a colour inside the bounding box of the mask, since most of a canvas is usually empty."""
    box = mask.getbbox()
    if box:
        layer.paste(colour, box, mask.crop(box))


def _polygon(points: list[tuple[int, int]]) -> Image.Image:
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask


def _cast_shadow(
    canvas: Image.Image, outline: Image.Image, stands: bool, pose: Pose, tones: dict[str, Colour]
) -> None:
    """A soft shadow: on the wall behind the product, and under it where it stands."""
    behind = ImageChops.offset(outline.reduce(8), 1, 1)
    _darken(canvas, behind, tones["shadow"], 22 if stands else 36)
    if stands:
        x, y = pose.centre[0], pose.centre[1] + pose.size // 2 - 2
        wide, high = pose.size * 46 // 100, 13
        pool = _polygon([(int(x + 6 + wide * a), int(y + high * b)) for a, b in CIRCLE])
        _darken(canvas, pool.reduce(8), tones["shadow"], 62)


def _darken(canvas: Image.Image, small: Image.Image, tone: Colour, percent: int) -> None:
    """`small` is the shadow's shape at an eighth of the canvas; its edges become soft."""
    soft = small.filter(ImageFilter.BoxBlur(1)).filter(ImageFilter.BoxBlur(1))
    soft = soft.point([value * percent // 100 for value in range(256)])
    _paint(canvas, tone, soft.resize(canvas.size, Image.Resampling.BILINEAR))


@cache
def _fall_of_light(strength: int) -> Image.Image:
    """A mask that darkens from 0 at the upper left to `strength` (of 255) at the lower right."""
    steps = np.arange(CANVAS)
    falling = (steps[None, :] * 2 + steps[:, None]) * strength // (3 * CANVAS)
    return Image.fromarray(falling.astype(np.uint8))


def _towards(start: Colour, end: Colour, percent: int) -> Colour:
    red, green, blue = (
        (a * (100 - percent) + b * percent + 50) // 100 for a, b in zip(start, end, strict=True)
    )
    return red, green, blue
