"""Writes titles, descriptions and reviews: each shop has its own templates, the style words are shared."""

import re

from catalog.demo.random_stream import RandomStream
from catalog.demo.style import (
    ASPECTS,
    BANDS,
    CATEGORIES,
    CATEGORY_WORDS,
    MATERIAL_WORDS,
    MATERIALS,
    MOOD_WORDS,
    MOODS,
    MOTIF_ADJECTIVES,
    MOTIF_NOUNS,
    MOTIFS,
    PALETTE_WORDS,
    PALETTES,
)
from catalog.demo.world import Item

TITLES = {
    "home": (
        "{Palette} {motif} {name} with {material} details",
        "{Mood} {name} in {palette}, {motif}",
        "{Motif} {name}, {palette} and {material}",
        "{Palette} {name}, {motif}, {mood}",
    ),
    "wardrobe": (
        "{Motif} {palette} {name} trimmed with {material}",
        "The {mood} {name} – {palette}, {motif}",
        "{Palette} {motif} {name}",
        "{Name} in {motif} {palette}",
    ),
}
OPENINGS = {
    "home": (
        "A {mood} {category} in {palette} tones, made to live with {figure}.",
        "Bring {palette} into the room: a {mood} {category} dressed in {figure}.",
        "Here is {palette} with {figure}: this {category} stays {mood} from morning to evening.",
        "Designed for {mood} interiors, this {category} carries {figure} on {palette} ground.",
    ),
    "wardrobe": (
        "Wear {figure} in {palette}: a {mood} {category} for every day of the week.",
        "Cut in {palette}, this {category} shows {figure} and keeps the outfit {mood}.",
        "Our {mood} take on the {name}, in {palette} with {figure} all over.",
        "A {category} for {mood} days, coloured {palette} and given {figure}.",
    ),
}
CLOSINGS = {
    "home": (
        "{Material} details finish it by hand in our small workshop.",
        "Touches of {material} give it weight on any shelf or floor.",
        "We pair it with {material} that ages well in a lived-in home.",
        "A hint of {material} ties it to the furniture around it.",
    ),
    "wardrobe": (
        "The trim is {material}, sewn to last many seasons.",
        "Fastened and edged with {material} by our tailors.",
        "{Material} accents make it easy to combine and comfortable to put on.",
        "Details in {material} keep their shape after years of wear.",
    ),
}
REVIEWS = {
    "colour": (
        "the {palette} tone is exactly what i was after",
        "such a beautiful shade of {palette}, even richer in daylight",
        "i fell for this {palette} hue the moment it arrived",
        "finally {palette} that matches the other colours i own",
        "that {palette} glows, i could look at the colour all day",
    ),
    "pattern": (
        "love the {motif} design, the print is crisp and even",
        "{motif} is my favourite pattern and this one is drawn so neatly",
        "i wanted a {motif} look and the motif repeats just right",
        "the {motif} print catches the eye without being too busy",
        "my collection of {motif} things grows, lovely pattern work",
    ),
    "material": (
        "such sturdy {material}, feels like it will last",
        "the {material} is soft under my fingers and well made",
        "real {material} you can feel, my hands keep going back to it",
        "i always check the {material} first and this is fine quality",
        "good honest {material}, nicely finished and pleasant to touch",
    ),
    "mood": (
        "gives off such a {mood} feeling, i smile whenever i see it",
        "has the {mood} spirit i hoped for",
        "so {mood}, it sets the atmosphere of my whole day",
        "the style is {mood} and that suits my character perfectly",
        "brings a {mood} air with it, just my kind of vibe",
    ),
    "shape": (
        "another {category} for me, its proportions are spot on",
        "just the kind of {name} i needed, handy size and form",
        "i can never have enough, this {category} sits perfectly",
        "a {category} with a good silhouette, fits where it should",
        "best {category} i have had so far, the outline is great",
    ),
    "price": (
        "{price}, so i ordered without thinking twice",
        "{price}, and i do compare shops before i buy",
        "what won me over: {price}",
        "{price}, that settled it for my purse",
        "looked at the tag first: {price}",
    ),
}
PRICE_WORDS = {
    "low": ("a real bargain", "very cheap for what you get", "costs almost nothing"),
    "middle": ("a fair price", "reasonable money", "neither cheap nor dear"),
    "high": ("worth paying extra for", "expensive but worth every cent", "a luxury i saved for"),
}
PAIRS = {"boots", "trousers", "socks", "mittens"}
"""Categories whose products are pairs: "a pair of boots", but "striped boots"."""


def write_title_and_description(item: Item, seed: int) -> tuple[str, str]:
    """The title and description of an item, consistent with its image."""
    rng = RandomStream(seed, f"words/{item.item_id}")
    title = _fill(rng.one_of(TITLES[item.domain]), item, rng)
    opening = _fill(rng.one_of(OPENINGS[item.domain]), item, rng)
    return title, f"{opening} {_fill(rng.one_of(CLOSINGS[item.domain]), item, rng)}"


def write_review(item: Item, aspect: int, rng: RandomStream) -> str:
    """A review of an item by a user who cares about this aspect: it names the item's true value of it."""
    return _fill(rng.one_of(REVIEWS[ASPECTS[aspect]]), item, rng)


def value_words(item: Item, aspect: int) -> tuple[str, ...]:
    """The words for the item's value of this aspect; a review about the aspect contains one of them."""
    match ASPECTS[aspect]:
        case "colour":
            return PALETTE_WORDS[PALETTES[item.palette].name]
        case "pattern":
            return MOTIF_ADJECTIVES[MOTIFS[item.motif]]
        case "material":
            return MATERIAL_WORDS[MATERIALS[item.material]]
        case "mood":
            return MOOD_WORDS[MOODS[item.mood]]
        case "shape":
            return CATEGORY_WORDS[CATEGORIES[item.domain][item.category]]
        case _:
            return PRICE_WORDS[BANDS[item.band]]


def _fill(template: str, item: Item, rng: RandomStream) -> str:
    traits = ("palette", "motif", "material", "mood", "name", "price")
    words = {trait: rng.one_of(value_words(item, aspect)) for aspect, trait in enumerate(traits)}
    words["figure"] = rng.one_of(MOTIF_NOUNS[MOTIFS[item.motif]])
    is_pair = CATEGORIES[item.domain][item.category] in PAIRS
    words["category"] = f"pair of {words['name']}" if is_pair else words["name"]
    words |= {trait.capitalize(): word.capitalize() for trait, word in words.items()}
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", template.format(**words))
