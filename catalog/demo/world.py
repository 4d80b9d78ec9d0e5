"""Samples the demo world: users, their tastes, items and purchases; knows nothing about pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.demo.random_stream import RandomStream
from catalog.demo.style import (
    ASPECTS,
    BANDS,
    CATEGORIES,
    DOMAINS,
    MATERIALS,
    MOODS,
    MOTIFS,
    PALETTES,
)

START = 1_672_531_200
"""Epoch seconds of the shops' first day, 2023-01-01."""
DAY = 86_400
DAYS = 730
LATE_DAY = 643
"""First day (of the last 12 % of the time) on which items appear that are cold at test time."""
FRESH_DAYS = 60
"""Days for which an item counts as new."""

LIKED = {"palette": 20, "motif": 3, "material": 3, "mood": 3, "category": 7, "band": 2}
"""Aspect → factor on the weight of an item that matches the user's taste, if it is not their main aspect."""
CRAVED = {"palette": 120, "motif": 40, "material": 40, "mood": 40, "category": 60, "band": 40}
"""Aspect → the factor if it is the one aspect that the user cares about most."""
ASPECT_TRAITS = dict(
    zip(ASPECTS, ("palette", "motif", "material", "mood", "category", "band"), strict=True)
)
"""Aspect → the trait of an item that a user with this aspect looks at."""
FRESHNESS = 4
"""Factor on the weight of an item while it is new."""


@dataclass(frozen=True)
class Item:
    """One thing in a shop; traits are indices into the vocabulary of `style`."""

    item_id: str
    domain: str
    category: int
    palette: int
    motif: int
    material: int
    mood: int
    band: int
    price: float
    release: int
    """Day on which it appears in the shop."""
    popularity: int
    """Weight of the item for all users, whatever their taste."""
    has_picture: bool
    has_text: bool


@dataclass(frozen=True)
class User:
    """One user, the same in both shops."""

    user_id: str
    palette: int
    """Taste until `drift_day`."""
    late_palette: int
    """Taste from `drift_day` on; equal to `palette` for those who never change."""
    drift_day: int
    motif: int
    material: int
    mood: int
    band: int
    aspect: int
    """The aspect they care about most, an index into ASPECTS."""
    categories: dict[str, list[int]]
    """Domain → 2 or 3 preferred categories, the favourite first."""

    def palette_on(self, day: int) -> int:
        return self.late_palette if day >= self.drift_day else self.palette


@dataclass(frozen=True)
class Purchase:
    user: int
    """Index into the users."""
    item: int
    """Index into the shop's items."""
    time: int
    """Epoch seconds."""


def make_users(seed: int, num_users: int) -> list[User]:
    # The names of streams decide what is drawn: they stay as they are.
    return [_make_user(RandomStream(seed, f"person/{place}"), place) for place in range(num_users)]


def _make_user(rng: RandomStream, place: int) -> User:
    palette = rng.below(len(PALETTES))
    drifts = rng.chance(25)
    other = (palette + rng.between(1, len(PALETTES) - 1)) % len(PALETTES)
    return User(
        user_id=f"p{place:04d}",
        palette=palette,
        late_palette=other if drifts else palette,
        drift_day=rng.between(DAYS * 3 // 10, DAYS * 7 // 10) if drifts else DAYS,
        motif=rng.below(len(MOTIFS)),
        material=rng.below(len(MATERIALS)),
        mood=rng.below(len(MOODS)),
        band=rng.below(len(BANDS)),
        aspect=rng.below(len(ASPECTS)),
        categories={
            domain: rng.some_of(range(len(CATEGORIES[domain])), rng.between(2, 3))
            for domain in DOMAINS
        },
    )


def make_items(seed: int, domain: str, num_items: int) -> list[Item]:
    rng = RandomStream(seed, f"items/{domain}")
    ranks = rng.shuffled(range(num_items))
    releases = _release_days(rng, num_items)
    order = rng.shuffled(range(num_items))
    each, both = -(-num_items // 10), -(-num_items // 50)
    no_picture = set(order[: each + both])
    no_text = set(order[each : 2 * each + both])
    items = []
    for place in range(num_items):
        band = rng.below(len(BANDS))
        items.append(
            Item(
                item_id=f"{domain[0]}{place:05d}",
                domain=domain,
                category=(category := rng.below(len(CATEGORIES[domain]))),
                palette=rng.below(len(PALETTES)),
                motif=rng.below(len(MOTIFS)),
                material=rng.below(len(MATERIALS)),
                mood=rng.below(len(MOODS)),
                band=band,
                price=_price(rng, category, band),
                release=releases[place],
                # Zipf's law with a flat head: the first is about 20 times as popular as the last.
                popularity=100 * num_items // (20 * ranks[place] + num_items),
                has_picture=place not in no_picture,
                has_text=place not in no_text,
            )
        )
    return items


def _release_days(rng: RandomStream, num_items: int) -> list[int]:
    """Release days (num_items,): more than half on the first day, one in eight near the end."""
    late = -(-num_items // 8)
    early = num_items * 55 // 100
    days = [0] * early
    days += [rng.between(1, LATE_DAY - FRESH_DAYS) for _ in range(num_items - early - late)]
    days += [rng.between(LATE_DAY, LATE_DAY + (DAYS - LATE_DAY) // 2) for _ in range(late)]
    return rng.shuffled(days)


def _price(rng: RandomStream, category: int, band: int) -> float:
    """A price in euros; the price bands of a category never overlap."""
    typical = 18 + 11 * ((5 * category) % 12)
    percent = rng.between(*((55, 80), (100, 125), (165, 230))[band])
    return (typical * percent // 100 * 100 + 90) / 100


def make_purchases(seed: int, domain: str, users: list[User], items: list[Item]) -> list[Purchase]:
    """All users' purchases in one shop, ordered by time; no user buys an item twice."""
    shop = _Shop(items)
    purchases = [
        purchase
        for row, user in enumerate(users)
        for purchase in _make_history(
            RandomStream(seed, f"purchases/{domain}/{row}"), row, user, shop
        )
    ]
    return sorted(purchases, key=lambda purchase: (purchase.time, purchase.user))


class _Shop:
    """A shop's items as columns, so that a user's weights need only a few array operations."""

    def __init__(self, items: list[Item]) -> None:
        self.domain = items[0].domain
        traits = (*ASPECT_TRAITS.values(), "popularity", "release")
        self.columns: dict[str, NDArray[np.int64]] = {
            trait: np.array([getattr(item, trait) for item in items], np.int64) for trait in traits
        }

    def weights(self, user: User, palette: int) -> NDArray[np.int64]:
        """The weight of every item for a user who prefers this palette: (num_items,)."""
        craved = ASPECT_TRAITS[ASPECTS[user.aspect]]
        weights = self.columns["popularity"].copy()
        for trait in ("motif", "material", "mood", "band"):
            factor = (CRAVED if trait == craved else LIKED)[trait]
            weights *= np.where(self.columns[trait] == getattr(user, trait), factor, 1)
        factor = (CRAVED if craved == "palette" else LIKED)["palette"]
        weights *= np.where(self.columns["palette"] == palette, factor, 1)
        for place, category in enumerate(user.categories[self.domain]):
            # Whoever cares about the shape of things collects one kind above all.
            factor = (CRAVED if craved == "category" and place == 0 else LIKED)["category"]
            weights *= np.where(self.columns["category"] == category, factor, 1)
        return weights


def _make_history(rng: RandomStream, row: int, user: User, shop: _Shop) -> list[Purchase]:
    # The sum of two draws is peaked at 11: 6 … 16 purchases, and 14 … 20 for one user in ten.
    count = 6 + rng.below(7) + rng.below(5)
    if rng.chance(10):
        count = rng.between(14, 20)
    times = sorted({START + rng.below(DAYS * DAY) for _ in range(count)})
    weights = {
        palette: shop.weights(user, palette) for palette in {user.palette, user.late_palette}
    }
    release = shop.columns["release"]
    kept = np.ones(len(release), np.int64)
    purchases = []
    for time in times:
        day = (time - START) // DAY
        # Items of the first day never count as new.
        fresh = (release > day - FRESH_DAYS) & (release > 0)
        now = weights[user.palette_on(day)] * kept * (release <= day)
        item = rng.weighted(now * np.where(fresh, FRESHNESS, 1))
        kept[item] = 0
        purchases.append(Purchase(row, item, time))
    return purchases
