"""The style vocabulary that both shops share: palettes, motifs, materials, moods and their words."""

from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]
"""Red, green and blue, each 0–255."""


@dataclass(frozen=True)
class Palette:
    """Three tones of one hue; hues of palettes differ enough to be distinguishable after a blur."""

    name: str
    ground: Colour
    """Colour of the background."""
    main: Colour
    """Colour of the product."""
    accent: Colour
    """Colour of its pattern, trim and details."""


PALETTES = (
    Palette("terracotta", (246, 213, 190), (203, 90, 52), (118, 42, 28)),
    Palette("mustard", (252, 234, 176), (231, 168, 24), (116, 84, 10)),
    Palette("moss", (217, 231, 194), (104, 146, 62), (42, 74, 30)),
    Palette("lagoon", (190, 232, 228), (14, 146, 150), (6, 76, 86)),
    Palette("cobalt", (203, 218, 248), (54, 98, 194), (22, 42, 108)),
    Palette("plum", (230, 210, 243), (134, 72, 168), (72, 28, 104)),
    Palette("rose", (254, 210, 224), (230, 90, 142), (138, 24, 80)),
    Palette("graphite", (229, 229, 227), (98, 100, 104), (36, 37, 40)),
)
MOTIFS = ("stripes", "dots", "checks", "waves", "leaves", "plain")
MATERIALS = ("linen", "wool", "leather", "velvet", "oak", "brass")
MOODS = ("calm", "playful", "rustic", "elegant", "retro", "modern")
BANDS = ("low", "middle", "high")
"""Price bands: an item's price relative to others of its category."""
ASPECTS = ("colour", "pattern", "material", "mood", "shape", "price")
"""Aspects, one of which a user cares about most."""

CATEGORIES: dict[str, Sequence[str]] = {
    "home": (
        *("lamp", "vase", "chair", "rug", "cushion", "mug"),
        *("clock", "mirror", "teapot", "candle", "basket", "planter"),
    ),
    "wardrobe": (
        *("dress", "shirt", "bag", "boots", "hat", "scarf"),
        *("coat", "skirt", "trousers", "socks", "mittens", "umbrella"),
    ),
}
DOMAINS = tuple(CATEGORIES)

PALETTE_WORDS = {
    "terracotta": ("terracotta", "rust", "clay"),
    "mustard": ("mustard", "saffron", "ochre"),
    "moss": ("moss", "fern", "olive"),
    "lagoon": ("lagoon", "teal", "turquoise"),
    "cobalt": ("cobalt", "indigo", "ultramarine"),
    "plum": ("plum", "aubergine", "violet"),
    "rose": ("rose", "blush", "raspberry"),
    "graphite": ("graphite", "slate", "charcoal"),
}
MOTIF_ADJECTIVES = {
    "stripes": ("striped", "banded", "pinstriped"),
    "dots": ("dotted", "spotted", "polka-dot"),
    "checks": ("checked", "gingham", "chequered"),
    "waves": ("wavy", "rippled", "scalloped"),
    "leaves": ("leafy", "botanical", "leaf-print"),
    "plain": ("plain", "solid", "unpatterned"),
}
MOTIF_NOUNS = {
    "stripes": ("stripes", "bands", "pinstripes"),
    "dots": ("dots", "spots", "polka dots"),
    "checks": ("checks", "gingham squares", "chequers"),
    "waves": ("waves", "ripples", "scallops"),
    "leaves": ("leaves", "botanical sprigs", "foliage"),
    "plain": ("a plain surface", "one solid tone", "an unpatterned face"),
}
MATERIAL_WORDS = {
    "linen": ("linen", "flax"),
    "wool": ("wool", "merino"),
    "leather": ("leather", "hide"),
    "velvet": ("velvet", "velours"),
    "oak": ("oak", "timber"),
    "brass": ("brass", "bronze"),
}
MOOD_WORDS = {
    "calm": ("calm", "serene", "quiet"),
    "playful": ("playful", "cheerful", "whimsical"),
    "rustic": ("rustic", "homespun", "earthy"),
    "elegant": ("elegant", "refined", "graceful"),
    "retro": ("retro", "vintage", "nostalgic"),
    "modern": ("modern", "sleek", "minimalist"),
}
CATEGORY_WORDS = {
    "lamp": ("lamp", "table lamp"),
    "vase": ("vase", "flower vase"),
    "chair": ("chair", "side chair"),
    "rug": ("rug", "floor rug"),
    "cushion": ("cushion", "throw cushion"),
    "mug": ("mug", "coffee mug"),
    "clock": ("clock", "wall clock"),
    "mirror": ("mirror", "wall mirror"),
    "teapot": ("teapot", "tea pot"),
    "candle": ("candle", "pillar candle"),
    "basket": ("basket", "storage basket"),
    "planter": ("planter", "plant pot"),
    "dress": ("dress", "day dress"),
    "shirt": ("shirt", "button shirt"),
    "bag": ("bag", "hand bag"),
    "boots": ("boots", "ankle boots"),
    "hat": ("hat", "brimmed hat"),
    "scarf": ("scarf", "long scarf"),
    "coat": ("coat", "overcoat"),
    "skirt": ("skirt", "midi skirt"),
    "trousers": ("trousers", "straight trousers"),
    "socks": ("socks", "ankle socks"),
    "mittens": ("mittens", "warm mittens"),
    "umbrella": ("umbrella", "walking umbrella"),
}
