"""Sketch of the interactions that a model was trained on: detects evaluation on training data.

Metrics on interactions that a model was pretrained on are invalid. A sketch of them is stored with the
encoder, so that a later stage can recognise them, also where the shop was exported again: with times in
another unit, in another order, with rows left out, or with ids of another type.

An interaction is identified by its user and its item, and among those of the same pair by its time, or,
where the two catalogs' times do not agree, by the number of earlier ones; the item by its id, and again
by its content, in case ids have changed. Shops that number users and items share many such triples by
chance. So matches count only where the two catalogs are of one shop: more of them than after swapping
users, and items of one id with equal content.
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
"""Maximum number of (user, item) pairs of each kind of hash: four megabytes without repeats."""
CHUNK = 1 << 20
"""Interactions hashed at once."""
SAMPLE = 1 << 20
"""Maximum number of interactions read to decide whether two catalogs are of one shop."""
SKETCH_FILE = "interaction_sketch.npy"
ENTRY = np.dtype(
    [("kind", "u1"), ("hash", "<u8"), ("earlier", "<u4"), ("time", "<i8"), ("content", "<u8")]
)
BY_ID, BY_CONTENT = 0, 1
NO_TIME = np.iinfo(np.int64).min
SAME_CONTENT = 0.1
"""Of matches by id, the minimum fraction whose items have equal content in two catalogs of one shop."""
SAME_SHARE = 0.5
"""Where items have no content: the fraction of interactions that match in two catalogs of one shop."""
SAME_TIMES = 0.5
"""Minimum fraction of matches with equal times for the two catalogs' times to agree."""
SAME_SHARE_BY_CONTENT = 0.02
"""By content alone: the minimum fraction that matches in two catalogs of one shop."""


@dataclass(frozen=True)
class InteractionSketch:
    """The `SKETCH_SIZE` smallest hashes of each kind of the training interactions (bottom-k; Broder, 1997).

    An interaction whose hash is at most the largest of the sketch is decidable: it was trained on if
    and only if the sketch holds it. With fewer than `SKETCH_SIZE` pairs, every interaction is.
    """

    entries: NDArray[Any]
    """ENTRY (num_entries,), ordered by kind and hash. hash: of user and item; earlier: number of the
    user's earlier interactions with the item; time: in seconds, NO_TIME without timestamps; content:
    hash of the item's content, 0 for none."""

    @classmethod
    def from_entries(cls, entries: NDArray[Any]) -> Self:
        smallest = []
        for kind in (BY_ID, BY_CONTENT):
            own = entries[entries["kind"] == kind]
            own = own[own["content"] > 0] if kind == BY_CONTENT else own
            own = own[np.argsort(own["hash"], kind="stable")]
            pairs = np.unique(own["hash"])[:SKETCH_SIZE]
            smallest.append(own[own["hash"] <= pairs[-1]] if len(pairs) else own)
        return cls(np.concatenate(smallest))

    @classmethod
    def empty(cls) -> Self:
        """The sketch of a model that was not trained."""
        return cls.from_entries(np.empty(0, dtype=ENTRY))

    @classmethod
    def training(cls, catalog: Catalog, split: Split) -> Self:
        """The sketch of a split's training interactions."""
        rows = np.flatnonzero(training_mask(catalog.interactions, split.train_end))
        sketch = cls.empty()
        for start in range(0, len(rows), CHUNK):
            entries = interaction_hashes(catalog, rows[start : start + CHUNK])
            sketch = cls.from_entries(np.concatenate([sketch.entries, entries]))
        return sketch

    def save(self, folder: Path) -> None:
        np.save(folder / SKETCH_FILE, self.entries, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(np.load(folder / SKETCH_FILE, allow_pickle=False))

    def check(
        self, catalog: Catalog, rows: NDArray[np.int64], one_shop: bool = False
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each of a catalog's interactions is decidable, and whether it was trained on.

        bool (rows,) each. `one_shop`: the catalog is known to be the one of the training.
        """
        decidable, seen = np.zeros((2, len(rows)), dtype=bool)
        some = _some_users(catalog.interactions)
        theirs, swapped = (
            interaction_hashes(catalog, some, swap=swap).reshape(2, -1) for swap in (False, True)
        )
        queries = interaction_hashes(catalog, rows).reshape(2, -1)
        for kind in (BY_ID, BY_CONTENT):
            sketch = _SketchOfKind(self.entries[self.entries["kind"] == kind], kind)
            places = np.flatnonzero(sketch.decidable(queries[kind]))
            decidable[places] = True
            if one_shop or sketch.is_one_shop(theirs[kind], swapped[kind]):
                seen[places] |= sketch.match(queries[kind][places], sketch.is_timed(theirs[kind]))
        return decidable, seen


class _SketchOfKind:
    """The entries of one kind."""

    def __init__(self, entries: NDArray[Any], kind: int) -> None:
        self.entries = entries
        self.by_content = kind == BY_CONTENT
        full = len(np.unique(entries["hash"])) == SKETCH_SIZE
        self.largest = entries["hash"][-1] if full else np.iinfo(np.uint64).max

    def decidable(self, queries: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each query is decidable; by content, items without content are not."""
        can = queries["hash"] <= self.largest
        return can & (queries["content"] > 0) if self.by_content else can

    def match(self, queries: NDArray[Any], timed: bool) -> NDArray[np.bool_]:
        """Whether the sketch holds each query: its pair at its time, or with as many earlier ones."""
        which = "time" if timed else "earlier"
        return np.isin(_keys(queries, which), _keys(self.entries, which))

    def is_timed(self, queries: NDArray[Any]) -> bool:
        """Whether the times of `queries` agree with those of the sketch."""
        matches = queries[self.match(queries, timed=False) & (queries["time"] != NO_TIME)]
        return len(matches) > 0 and float(self.match(matches, timed=True).mean()) >= SAME_TIMES

    def is_one_shop(self, queries: NDArray[Any], swapped: NDArray[Any]) -> bool:
        """Whether `queries` are of the shop of the sketch.

        `swapped` are the same interactions with users swapped: an estimate of matches by chance.
        """
        if not len(self.entries):
            return False
        queries, swapped = queries[self.decidable(queries)], swapped[self.decidable(swapped)]
        matches = queries[self.match(queries, timed=False)]
        by_chance = (
            float(self.match(swapped, timed=False).sum()) * len(queries) / max(1, len(swapped))
        )
        if len(matches) < 2 or len(matches) <= 1.1 * by_chance + 4 * by_chance**0.5:
            return False
        share = (len(matches) - by_chance) / max(1.0, len(queries) - by_chance)
        if self.by_content:
            return share >= SAME_SHARE_BY_CONTENT
        ours = self.entries["content"][np.searchsorted(self.entries["hash"], matches["hash"])]
        alike = (ours == matches["content"])[(ours > 0) & (matches["content"] > 0)]
        same_content = alike.sum() > 1 and float(alike.mean()) >= SAME_CONTENT
        return bool(same_content) or share >= SAME_SHARE


def _keys(entries: NDArray[Any], which: str) -> NDArray[np.uint64]:
    return splitmix64(entries["hash"] ^ splitmix64(entries[which].astype(np.int64).view(np.uint64)))


def interaction_hashes(
    catalog: Catalog, rows: NDArray[np.int64], swap: bool = False
) -> NDArray[Any]:
    """ENTRY (2 · rows,): the hashes of each of `rows` by its item's id, then those by content.

    Ids count, not row numbers, and no column of times: another export of the same shop has equal hashes.
    `swap`: each user is replaced by another one.
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
    """An id as text, whatever its type in a table: 7, 007 and 7.0 are equal."""
    text = identity.strip()
    number = re.fullmatch(r"([+-]?)0*(\d+)(?:\.0+)?", text)
    return f"{'-' if number[1] == '-' else ''}{number[2]}" if number else text


def _hash_users(
    catalog: Catalog, users: NDArray[np.int64], rows: NDArray[np.int64], swap: bool
) -> NDArray[Any]:
    """ENTRY (2, rows) of `rows`, which belong to `users` (ascending); reads their whole histories."""
    interactions = catalog.interactions
    history = _rows_of(interactions, users)
    owner = np.repeat(np.arange(len(users)), np.diff(interactions.offsets)[users])
    items, item = np.unique(interactions.items[history], return_inverse=True)
    times = np.asarray(interactions.times[history])
    named = (users + catalog.num_users // 2) % catalog.num_users if swap else users
    names = hash_ids(map(canonical_id, catalog.user_ids[named].tolist()))
    ids = hash_ids(map(canonical_id, catalog.items.select(items)["item_id"][:]))
    contents = _contents(catalog, items)
    places = np.searchsorted(history, rows)
    found = np.zeros((2, len(rows)), dtype=ENTRY)
    found["time"] = _seconds(times[places]) if catalog.has_timestamps else NO_TIME
    found["content"] = contents[item[places]]
    for kind, codes in ((BY_ID, ids), (BY_CONTENT, contents)):
        found[kind]["kind"] = kind
        found[kind]["earlier"] = _earlier(owner, codes[item], times)[places]
        found[kind]["hash"] = splitmix64(splitmix64(names[owner[places]]) ^ codes[item[places]])
    is_unique = _one_item_each(owner, contents[item], item)[places]
    found[BY_CONTENT]["content"][~is_unique] = 0
    return found


def _one_item_each(
    owner: NDArray[np.int64], contents: NDArray[np.uint64], item: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether no other item of the user has the same content, for each interaction, bool (n,).

    Where one has (an item listed twice, both taken in the same second), content does not identify the
    interaction.
    """
    pairs = splitmix64(owner.astype(np.uint64)) ^ contents
    _, first = np.unique(splitmix64(pairs) ^ item.astype(np.uint64), return_index=True)
    distinct, num_items = np.unique(pairs[first], return_counts=True)
    return num_items[np.searchsorted(distinct, pairs)] == 1


def _earlier(
    owner: NDArray[np.int64], codes: NDArray[np.uint64], times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of the user's earlier interactions with the same hash, for each interaction (n,)."""
    order = np.lexsort((times, codes, owner))
    places = np.arange(len(order))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(owner[order]) != 0) | (codes[order][1:] != codes[order][:-1])
    counts = np.empty(len(order), dtype=np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return counts


def _contents(catalog: Catalog, items: NDArray[np.integer]) -> NDArray[np.uint64]:
    """A hash of each item's content: its title, else its text, else its image's size; 0 for none."""
    known = catalog.items.select(items)
    found = np.zeros(len(items), dtype=np.uint64)
    for place, (title, text, image) in enumerate(
        zip(known["title"][:], known["text"][:], known["image"][:], strict=True)
    ):
        content = _plain(title) or _plain(text)
        if not content and image and os.path.isfile(image):
            content = f"{os.path.getsize(image)} bytes"
        if content:
            found[place] = hash_ids([content])[0]
    return found


def _plain(text: str | None) -> str:
    """Letters and digits alone, as formats and clean-ups leave them."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text or "").casefold())


def _seconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times of any unit in seconds, the unit inferred from the size.

    Before the year 5138 no number of seconds is as large as that of milliseconds since 1973.
    """
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
