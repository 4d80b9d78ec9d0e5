"""What a model was shown of users' histories, small enough to be kept beside it.

Figures on interactions that a model was pretrained on are worth nothing. A sketch of them travels with
the encoder, so that a later stage can tell, also where the shop was exported again: with times in
another unit, in another order, with rows left out, or with ids of another type.

An interaction is known by its user and its item, and among those of the pair by its moment, or, where the
two catalogs do not tell moments alike, by how many came before it; the item by its id, and again by what
it says, should ids have changed. Shops that count users and items by small
numbers share many such triples by chance. So matches count only where the two catalogs are one shop:
more of them than when users are swapped, and items of one id that say the same.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.hashing import hash_ids, splitmix64
from catalog.interactions import Interactions
from catalog.splits import Split, training_mask

SKETCH_SIZE = 65_536
"""Pairs of user and item kept at most, by each kind of hash: four megabytes, where nobody repeats."""
CHUNK = 1 << 20
"""Interactions hashed at once."""
SAMPLE = 1 << 20
"""Interactions looked at, at most, to tell whether two catalogs are one shop."""
SKETCH_FILE = "seen-2.npy"
ENTRY = np.dtype(
    [("kind", "u1"), ("hash", "<u8"), ("earlier", "<u4"), ("time", "<i8"), ("content", "<u8")]
)
BY_ID, BY_CONTENT = 0, 1
NO_TIME = np.iinfo(np.int64).min
SAME_CONTENT = 0.1
"""Of matches by id, the least share whose items say the same in two catalogs of one shop."""
SAME_SHARE = 0.5
"""Where items say nothing: the share of interactions that match in two catalogs of one shop."""
SAME_TIMES = 0.5
"""From this share of matches at equal moments on, the two catalogs tell moments alike."""
FEW = 0.02
"""By content alone: the least share that matches in two catalogs of one shop."""


@dataclass(frozen=True)
class InteractionSketch:
    """Of each kind of hash the `SKETCH_SIZE` smallest of what was seen (Broder's bottom-k sketch, 1997).

    An interaction whose hash is no larger than the largest kept is decidable: the sketch holds it if it
    was seen. With fewer than `SKETCH_SIZE` pairs in all, every one is.
    """

    entries: NDArray[Any]
    """ENTRY (kept,), ordered by kind and hash. hash: of user and item; earlier: how often the user had
    taken the item before; time: in seconds, NO_TIME where times are no moments; content: hash of what
    the item says, 0 for nothing."""

    @classmethod
    def of(cls, entries: NDArray[Any]) -> Self:
        found = []
        for kind in (BY_ID, BY_CONTENT):
            own = entries[entries["kind"] == kind]
            own = own[own["content"] > 0] if kind == BY_CONTENT else own
            own = own[np.argsort(own["hash"], kind="stable")]
            pairs = np.unique(own["hash"])[:SKETCH_SIZE]
            found.append(own[own["hash"] <= pairs[-1]] if len(pairs) else own)
        return cls(np.concatenate(found))

    @classmethod
    def empty(cls) -> Self:
        """Of a model that took no step."""
        return cls.of(np.empty(0, dtype=ENTRY))

    @classmethod
    def training(cls, catalog: Catalog, split: Split) -> Self:
        """The training part of every history."""
        rows = np.flatnonzero(training_mask(catalog.interactions, split.train_end))
        sketch = cls.empty()
        for start in range(0, len(rows), CHUNK):
            entries = interaction_hashes(catalog, rows[start : start + CHUNK])
            sketch = cls.of(np.concatenate([sketch.entries, entries]))
        return sketch

    def save(self, folder: Path) -> None:
        np.save(folder / SKETCH_FILE, self.entries, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(np.load(folder / SKETCH_FILE, allow_pickle=False))

    def check(
        self, catalog: Catalog, rows: NDArray[np.int64], one_shop: bool = False
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For each of `rows` of a catalog's interactions: whether it is decidable, and whether it was
        seen; bool (rows,) each. `one_shop`: the catalog is known to be the one that was seen."""
        decidable, seen = np.zeros((2, len(rows)), dtype=bool)
        some = _some_users(catalog.interactions)
        theirs, swapped = (
            interaction_hashes(catalog, some, swap=swap).reshape(2, -1) for swap in (False, True)
        )
        asked = interaction_hashes(catalog, rows).reshape(2, -1)
        for kind in (BY_ID, BY_CONTENT):
            known = _Known(self.entries[self.entries["kind"] == kind], kind)
            places = np.flatnonzero(known.decidable(asked[kind]))
            decidable[places] = True
            if one_shop or known.is_one_shop(theirs[kind], swapped[kind]):
                seen[places] |= known.match(asked[kind][places], known.is_timed(theirs[kind]))
        return decidable, seen


class _Known:
    """The entries of one kind."""

    def __init__(self, entries: NDArray[Any], kind: int) -> None:
        self.entries = entries
        self.by_content = kind == BY_CONTENT
        full = len(np.unique(entries["hash"])) == SKETCH_SIZE
        self.largest = entries["hash"][-1] if full else np.iinfo(np.uint64).max

    def decidable(self, asked: NDArray[Any]) -> NDArray[np.bool_]:
        """By content, items that say nothing are not."""
        can = asked["hash"] <= self.largest
        return can & (asked["content"] > 0) if self.by_content else can

    def match(self, asked: NDArray[Any], timed: bool) -> NDArray[np.bool_]:
        """Whether each of `asked` was seen: its pair at its moment, or as often as it comes before."""
        which = "time" if timed else "earlier"
        return np.isin(_keys(asked, which), _keys(self.entries, which))

    def is_timed(self, asked: NDArray[Any]) -> bool:
        """Whether the moments of `asked` are told as they were when they were seen."""
        held = asked[self.match(asked, timed=False) & (asked["time"] != NO_TIME)]
        return len(held) > 0 and float(self.match(held, timed=True).mean()) >= SAME_TIMES

    def is_one_shop(self, asked: NDArray[Any], swapped: NDArray[Any]) -> bool:
        """Whether `asked` is of the shop that was seen; `swapped` is the same with other users, and says
        what chance does."""
        if not len(self.entries):
            return False
        asked, swapped = asked[self.decidable(asked)], swapped[self.decidable(swapped)]
        held = asked[self.match(asked, timed=False)]
        by_chance = (
            float(self.match(swapped, timed=False).sum()) * len(asked) / max(1, len(swapped))
        )
        if len(held) < 2 or len(held) <= 1.1 * by_chance + 4 * by_chance**0.5:
            return False
        share = (len(held) - by_chance) / max(1.0, len(asked) - by_chance)
        if self.by_content:
            return share >= FEW
        ours = self.entries["content"][np.searchsorted(self.entries["hash"], held["hash"])]
        alike = (ours == held["content"])[(ours > 0) & (held["content"] > 0)]
        says_the_same = alike.sum() > 1 and float(alike.mean()) >= SAME_CONTENT
        return bool(says_the_same) or share >= SAME_SHARE


def _keys(entries: NDArray[Any], which: str) -> NDArray[np.uint64]:
    return splitmix64(entries["hash"] ^ splitmix64(entries[which].astype(np.int64).view(np.uint64)))


def interaction_hashes(
    catalog: Catalog, rows: NDArray[np.int64], swap: bool = False
) -> NDArray[Any]:
    """ENTRY (2 · rows,): the hashes of each of `rows` by its item's id, then those by content.

    Ids count, not row numbers, and no column of times: another export of the same shop gives the same.
    `swap`: as if each user were another one.
    """
    interactions = catalog.interactions
    found = np.zeros((2, len(rows)), dtype=ENTRY)
    users = np.searchsorted(interactions.offsets, rows, side="right") - 1
    order = np.argsort(users, kind="stable")
    for chosen in _in_chunks(interactions, np.unique(users)):
        bounds = np.searchsorted(users[order], [chosen[0], chosen[-1] + 1])
        places = order[bounds[0] : bounds[1]]
        found[:, places] = _hash_users(catalog, chosen, rows[places], swap)
    return found.ravel()


def canonical_id(identity: str) -> str:
    """An id as text whichever type a table gives it: 7, 007 and 7.0 are one."""
    text = identity.strip()
    number = re.fullmatch(r"([+-]?)0*(\d+)(?:\.0+)?", text)
    return f"{'-' if number[1] == '-' else ''}{number[2]}" if number else text


def _hash_users(
    catalog: Catalog, users: NDArray[np.int64], rows: NDArray[np.int64], swap: bool
) -> NDArray[Any]:
    """ENTRY (2, rows) of `rows`, which belong to `users` (ascending); reads their histories whole."""
    interactions = catalog.interactions
    history = _rows_of(interactions, users)
    whose = np.repeat(np.arange(len(users)), np.diff(interactions.offsets)[users])
    things, thing = np.unique(interactions.items[history], return_inverse=True)
    times = np.asarray(interactions.times[history])
    named = (users + catalog.num_users // 2) % catalog.num_users if swap else users
    names = hash_ids(map(canonical_id, catalog.user_ids[named].tolist()))
    ids = hash_ids(map(canonical_id, catalog.items.select(things)["item_id"][:]))
    contents = _contents(catalog, things)
    wanted = np.searchsorted(history, rows)
    found = np.zeros((2, len(rows)), dtype=ENTRY)
    found["time"] = _seconds(times[wanted]) if catalog.has_timestamps else NO_TIME
    found["content"] = contents[thing[wanted]]
    for kind, codes in ((BY_ID, ids), (BY_CONTENT, contents)):
        found[kind]["kind"] = kind
        found[kind]["earlier"] = _earlier(whose, codes[thing], times)[wanted]
        found[kind]["hash"] = splitmix64(splitmix64(names[whose[wanted]]) ^ codes[thing[wanted]])
    alone = _one_item_each(whose, contents[thing], thing)[wanted]
    found[BY_CONTENT]["content"][~alone] = 0
    return found


def _one_item_each(
    whose: NDArray[np.int64], contents: NDArray[np.uint64], thing: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether no other item of the user has the same content, for each interaction, bool (n,).

    Where one has (an item listed twice, both taken in the same second), content does not identify the
    interaction.
    """
    pairs = splitmix64(whose.astype(np.uint64)) ^ contents
    _, first = np.unique(splitmix64(pairs) ^ thing.astype(np.uint64), return_index=True)
    distinct, num_items = np.unique(pairs[first], return_counts=True)
    return num_items[np.searchsorted(distinct, pairs)] == 1


def _earlier(
    whose: NDArray[np.int64], codes: NDArray[np.uint64], times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How often the user had taken an item of the same code before, for each interaction (n,)."""
    order = np.lexsort((times, codes, whose))
    places = np.arange(len(order))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(whose[order]) != 0) | (codes[order][1:] != codes[order][:-1])
    counts = np.empty(len(order), dtype=np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return counts


def _contents(catalog: Catalog, items: NDArray[np.integer]) -> NDArray[np.uint64]:
    """A hash of what each item says: of its title, else its text, else its picture's size; 0 for
    nothing."""
    known = catalog.items.select(items)
    found = np.zeros(len(items), dtype=np.uint64)
    for place, (title, text, image) in enumerate(
        zip(known["title"][:], known["text"][:], known["image"][:], strict=True)
    ):
        words = _plain(title) or _plain(text)
        if not words and image and os.path.isfile(image):
            words = f"{os.path.getsize(image)} bytes"
        if words:
            found[place] = hash_ids([words])[0]
    return found


def _plain(text: str | None) -> str:
    """Letters and digits alone, as formats and clean-ups leave them."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text or "").casefold())


def _seconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Moments of any unit, told by their size: before the year 5138 no second is as large as the
    milliseconds since 1973."""
    seconds = times.astype(np.int64)
    for _ in range(3):  # nanoseconds, microseconds, milliseconds
        seconds = np.where(np.abs(seconds) >= 100_000_000_000, seconds // 1000, seconds)
    return seconds


def _some_users(interactions: Interactions) -> NDArray[np.int64]:
    """Rows of whole histories, evenly spaced, about `SAMPLE` at most."""
    stride = max(1, -(-len(interactions) // SAMPLE))
    return _rows_of(interactions, np.arange(0, len(interactions.offsets) - 1, stride))


def _rows_of(interactions: Interactions, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of these users' interactions, user after user."""
    starts = np.asarray(interactions.offsets)[users]
    lengths = np.diff(interactions.offsets)[users]
    shifts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - shifts, lengths)


def _in_chunks(interactions: Interactions, users: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Users (ascending) in groups of about `CHUNK` interactions."""
    ends = np.cumsum(np.diff(interactions.offsets)[users]) // CHUNK
    for group in np.split(users, np.flatnonzero(np.diff(ends)) + 1):
        if len(group):
            yield group
