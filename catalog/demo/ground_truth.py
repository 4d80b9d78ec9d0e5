"""Ground truth of the demo world: users' tastes and items' traits; for evaluation, never for training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.demo import image_attributes
from catalog.demo.style import (
    ASPECTS,
    BANDS,
    CATEGORIES,
    CATEGORY_WORDS,
    DOMAINS,
    MATERIAL_WORDS,
    MATERIALS,
    MOOD_WORDS,
    MOODS,
    MOTIF_ADJECTIVES,
    MOTIF_NOUNS,
    MOTIFS,
    PALETTE_WORDS,
    PALETTES,
    Palette,
)
from catalog.demo.texts import PRICE_WORDS, value_words
from catalog.demo.world import ASPECT_TRAITS, Item, User
from catalog.errors import VitrineError, did_you_mean

Known = TypeVar("Known")


@dataclass(frozen=True, eq=False)
class DemoGroundTruth:
    """Users' tastes and items' traits, as indices into the tuples below.

    A user's taste is the one at the end of the time range, where the test targets lie.
    """

    folder: Path
    items: Mapping[str, Mapping[str, Item]]
    """Domain → item id → item."""
    users: Mapping[str, User]
    """User id → user, the same in both domains."""
    palettes: tuple[Palette, ...] = PALETTES
    motifs: tuple[str, ...] = MOTIFS
    materials: tuple[str, ...] = MATERIALS
    moods: tuple[str, ...] = MOODS
    bands: tuple[str, ...] = BANDS
    aspects: tuple[str, ...] = ASPECTS

    @classmethod
    def load(cls, folder: str | Path) -> "DemoGroundTruth":
        """Loads it from a demo world's folder, or the `ground_truth` in it; VitrineError if it is neither."""
        folder = Path(folder)
        inside = folder / "ground_truth" if (folder / "ground_truth").is_dir() else folder
        if not (inside / "world.json").is_file():
            raise VitrineError(
                f"{folder} holds no ground truth of a demo world; make one with `vitrine catalog demo`."
            )
        items: dict[str, dict[str, Item]] = {domain: {} for domain in DOMAINS}
        for row in pq.read_table(inside / "items.parquet").to_pylist():
            items[row["domain"]][row["item_id"]] = Item(**row)
        users = pq.read_table(inside / "users.parquet").to_pylist()
        return cls(inside, items, {row["user_id"]: User(**row) for row in users})

    def item(self, domain: str, item_id: str) -> Item:
        return _find(_find(self.items, domain, "domain"), item_id, "item")

    def user(self, user_id: str) -> User:
        return _find(self.users, user_id, "user")

    def palette_of_item(self, domain: str, item_id: str) -> int:
        return self.item(domain, item_id).palette

    def motif_of_item(self, domain: str, item_id: str) -> int:
        return self.item(domain, item_id).motif

    def category_of_item(self, domain: str, item_id: str) -> str:
        return CATEGORIES[domain][self.item(domain, item_id).category]

    def words_of_item(self, domain: str, item_id: str, aspect: int) -> tuple[str, ...]:
        """All words for the item's true value of an aspect; a correct review contains one of them."""
        return value_words(self.item(domain, item_id), aspect)

    def palette_of_user(self, domain: str, user_id: str) -> int:
        _find(self.items, domain, "domain")
        return self.user(user_id).late_palette

    def motif_of_user(self, domain: str, user_id: str) -> int:
        _find(self.items, domain, "domain")
        return self.user(user_id).motif

    def aspect_of_user(self, user_id: str) -> int:
        return self.user(user_id).aspect

    def taste_of_user(self, domain: str, user_id: str, aspect: int) -> int:
        """The user's preferred value of an aspect; for categories the favourite one in that domain."""
        user, trait = self.user(user_id), ASPECT_TRAITS[ASPECTS[aspect]]
        if trait == "category":
            return _find(user.categories, domain, "domain")[0]
        return user.late_palette if trait == "palette" else getattr(user, trait)

    def silhouettes(self, domain: str) -> NDArray[np.bool_]:
        """Product masks, bool (num_items, 64, 64): true inside the product; all false without an image."""
        _find(self.items, domain, "domain")
        return np.unpackbits(np.load(self.folder / f"silhouettes_{domain}.npy"), axis=2) > 0

    classify_palette = staticmethod(image_attributes.classify_palette)
    score_palettes = staticmethod(image_attributes.score_palettes)
    classify_motif = staticmethod(image_attributes.classify_motif)
    score_motifs = staticmethod(image_attributes.score_motifs)

    @staticmethod
    def classify_aspect(text: str) -> int | None:
        """The aspect that a review is about, from its words alone: index into `aspects`.

        None if it names no value of any aspect, or equally many of two aspects. Correct for every review of
        the demo world.
        """
        counts = [len(pattern.findall(text.lower())) for pattern in _ASPECT_PATTERNS]
        most = max(counts)
        return counts.index(most) if most and counts.count(most) == 1 else None

    @staticmethod
    def classify_value(text: str, aspect: int) -> int | None:
        """The value of an aspect that a text names, as an index like an item's; None unless exactly one.

        For the shape, an index into the categories of both domains, home first.
        """
        found = {
            value
            for value, pattern in enumerate(_VALUE_PATTERNS[aspect])
            if pattern.search(text.lower())
        }
        return found.pop() if len(found) == 1 else None


def _find(known: Mapping[str, Known], name: str, what: str) -> Known:
    if name not in known:
        raise VitrineError(f"the demo world has no {what} {name!r}.{did_you_mean(name, known)}")
    return known[name]


def _pattern(words: list[str]) -> re.Pattern[str]:
    """A pattern that matches whole words, the longest first, so that "table lamp" counts once."""
    longest = sorted(set(words), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])")


def _value_words() -> list[list[list[str]]]:
    """Aspect → value → its words."""
    kinds = [kind for domain in DOMAINS for kind in CATEGORIES[domain]]
    return [
        [list(PALETTE_WORDS[palette.name]) for palette in PALETTES],
        [[*MOTIF_ADJECTIVES[motif], *MOTIF_NOUNS[motif]] for motif in MOTIFS],
        [list(MATERIAL_WORDS[material]) for material in MATERIALS],
        [list(MOOD_WORDS[mood]) for mood in MOODS],
        [list(CATEGORY_WORDS[kind]) for kind in kinds],
        [list(PRICE_WORDS[band]) for band in BANDS],
    ]


_VALUE_PATTERNS = [[_pattern(words) for words in values] for values in _value_words()]
_ASPECT_PATTERNS = [
    _pattern([word for words in values for word in words]) for values in _value_words()
]
