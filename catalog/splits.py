"""Divides histories into training, validation and test; knows nothing about learning them."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.interactions import Interactions
from catalog.reorder import (
    SPLITTERS,
    TEST,
    TRAIN,
    VALIDATION,
    ReorderedInteractions,
    check_fractions,
    reorder_histories,
)


@dataclass(frozen=True, eq=False)
class Targets:
    """Held-out items: the item at `positions`, after the first `history_lengths`; of a random or given split
    a person may have several."""

    users: NDArray[np.int32]
    """(num_targets,), ascending."""
    positions: NDArray[np.int32]
    """(num_targets,): place in the person's own history."""
    visible_lengths: NDArray[np.int32] | None = None
    """(num_targets,): `history_lengths`, where what lies between history and target must stay unseen."""
    repeats: str = "drop"
    """Whether items of the history are candidates; see `SplitConfig.repeats`."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def history_lengths(self) -> NDArray[np.int32]:
        """(num_targets,): how many interactions, from the person's first, are the history."""
        return self.positions if self.visible_lengths is None else self.visible_lengths

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "Targets":
        """Those at the places, or of the mask, `chosen`."""
        lengths = None if self.visible_lengths is None else self.visible_lengths[chosen]
        return Targets(self.users[chosen], self.positions[chosen], lengths, self.repeats)

    def first_per_user(self) -> "Targets":
        """The first one of every person."""
        return self.take(np.unique(self.users, return_index=True)[1])

    def sample_users(self, most: int) -> "Targets":
        """All of at most so many people, evenly drawn, always the same."""
        people = np.unique(self.users)
        drawn = np.random.default_rng(0).permutation(len(people))[:most]
        return self.take(np.isin(self.users, people[drawn]))

    def history(self, interactions: Interactions, place: int) -> NDArray[np.int32]:
        """The items before target number `place`, oldest first: int32 (length,)."""
        begin = interactions.offsets[self.users[place]]
        return interactions.items[begin : begin + self.history_lengths[place]]


@dataclass(frozen=True, eq=False)
class Split:
    """What is learned from and what is held out; a training history is items[:train_end]."""

    config: SplitConfig
    train_end: NDArray[np.int32]
    """(num_users,)"""
    validation: Targets
    test: Targets
    train_counts: NDArray[np.int64]
    """(num_items,): how often each item occurs in training."""
    cut_times: tuple[int, int] | None = None
    """global-time: the first moments of validation and of test, in the catalog's unit of time."""
    cold_fractions: dict[str, float] = field(default_factory=dict)
    """validation, test → share of targets whose item never occurs in training."""
    source_rows: NDArray[np.int64] | None = None
    """random, given: where each interaction lies in the catalog's own order (see `reorder_histories`)."""
    num_repeated: dict[str, int] = field(default_factory=dict)
    """validation, test → targets whose item is in the history before it; `repeats: drop` left them out."""

    @property
    def warm_items(self) -> NDArray[np.bool_]:
        """(num_items,): occurs at least once in training; the others are "cold"."""
        return self.train_counts > 0

    @property
    def hash(self) -> str:
        """sha256 of what is held out; equal for equal splits, however they came about."""
        digest = hashlib.sha256()
        for array in (
            self.train_end,
            self.validation.users,
            self.validation.positions,
            self.test.users,
            self.test.positions,
        ):
            digest.update(f"{len(array)}\n".encode())
            digest.update(np.ascontiguousarray(array).astype("<i4").tobytes())
        if self.source_rows is not None:
            digest.update(self.source_rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def train_positions(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(users, positions), int32 (num_pairs,): every training position that has a history."""
        lengths = np.maximum(self.train_end.astype(np.int64) - 1, 0)
        users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths) + 1
        return users, positions.astype(np.int32)

    def describe(self) -> dict[str, Any]:
        """For a manifest: the rule, the cuts, the counts, the shares of cold targets, the hash."""
        return {
            **asdict(self.config),
            "cut_times": list(self.cut_times) if self.cut_times else None,
            "train_interactions": int(self.train_end.sum(dtype=np.int64)),
            "validation_targets": len(self.validation),
            "test_targets": len(self.test),
            "warm_items": int(self.warm_items.sum()),
            "cold_items": int((~self.warm_items).sum()),
            "cold_fraction_validation": self.cold_fractions.get("validation", 0.0),
            "cold_fraction_test": self.cold_fractions.get("test", 0.0),
            "repeated_validation_targets": self.num_repeated.get("validation", 0),
            "repeated_test_targets": self.num_repeated.get("test", 0),
            "hash": self.hash,
        }


def load_split(catalog: CatalogConfig, split: SplitConfig) -> tuple[Catalog, Split]:
    """The catalog with its histories as the split reads them, and the split.

    Raises VitrineError as `load_catalog`, `reorder_histories` and `make_split` do.
    """
    read = reorder_histories(load_catalog(catalog), split)
    return read, make_split(read, split)


def make_split(catalog: Catalog, config: SplitConfig) -> Split:
    """Splits every history into training, validation and test parts.

    global-time: two moments, chosen so that about the wanted shares of all interactions lie after
    them; a target is the person's first item of its period. leave-one-out: a person's last item is
    the test target and the one before it the validation target; who has fewer than three
    interactions, or too short a history for a test target, is kept whole for training. random, given:
    every item of a person's validation or test part is a target, once, its history their training part
    alone. Targets that are in their own history are left out where `repeats` is drop.
    Raises VitrineError for settings that cannot work, and for global-time without moments.
    """
    kinds = {
        "global-time": _global_time,
        "leave-one-out": _leave_one_out,
        **dict.fromkeys(SPLITTERS, _parts),
    }
    if config.kind not in kinds:
        raise VitrineError(
            f"split.kind {config.kind!r} is unknown.{did_you_mean(config.kind, kinds)}"
        )
    if config.min_history < 0:
        raise VitrineError(f"split.min_history is {config.min_history}; give 0 or more.")
    interactions = catalog.interactions
    arranged = interactions if isinstance(interactions, ReorderedInteractions) else None
    if (arranged and arranged.config) != (config if config.kind in SPLITTERS else None):
        raise ValueError("positions of a split mean nothing in histories not arranged for it")
    if config.repeats not in REPEATS:
        raise VitrineError(
            f"split.repeats {config.repeats!r} is unknown.{did_you_mean(config.repeats, REPEATS)}"
        )
    ends, validation, test, cut_times = kinds[config.kind](catalog, config)
    repeated, parts = {}, {"validation": validation, "test": test}
    for name, targets in parts.items():
        in_history = repeated_target_mask(interactions, targets)
        repeated[name] = int(in_history.sum())
        kept = targets.take(~in_history) if config.repeats == "drop" else targets
        parts[name] = replace(kept, repeats=config.repeats)
    if repeated["test"] and not len(parts["test"]):
        raise VitrineError(
            f"all {repeated['test']:,} test targets of {catalog.name} are in their user's history "
            "already, and split.repeats 'drop' leaves them out; set split.repeats: rank, or mask"
        )
    validation, test = parts["validation"], parts["test"]
    counts = _train_counts(interactions, ends, catalog.num_items)
    cold_fractions = {
        name: _cold_fraction(interactions, targets, counts) for name, targets in parts.items()
    }
    rows = arranged.source_rows if arranged else None
    return Split(config, ends, validation, test, counts, cut_times, cold_fractions, rows, repeated)


REPEATS = ("drop", "mask", "rank")
Places = tuple[NDArray[np.int32], Targets, Targets, tuple[int, int] | None]


def _leave_one_out(catalog: Catalog, config: SplitConfig) -> Places:
    lengths = np.diff(catalog.interactions.offsets)
    held_out = lengths >= max(3, config.min_history + 1)
    ends = np.where(held_out, lengths - 2, lengths)
    return (
        ends.astype(np.int32),
        _targets(held_out & (lengths - 2 >= config.min_history), lengths - 2),
        _targets(held_out, lengths - 1),
        None,
    )


def _global_time(catalog: Catalog, config: SplitConfig) -> Places:
    if not catalog.has_timestamps:
        raise VitrineError(
            f"the catalog {catalog.name} orders each person's items but has no dates, so no moment "
            "divides past from future; set split.kind: leave-one-out."
        )
    interactions = catalog.interactions
    first, second = _choose_cuts(interactions.times, config)
    before_first = _count_before(interactions, first)
    before_second = _count_before(interactions, second)
    lengths = np.diff(interactions.offsets)
    return (
        before_first.astype(np.int32),
        _targets(
            (before_second > before_first) & (before_first >= config.min_history), before_first
        ),
        _targets((lengths > before_second) & (before_second >= config.min_history), before_second),
        (first, second),
    )


def _parts(catalog: Catalog, config: SplitConfig) -> Places:
    interactions = catalog.interactions
    assert isinstance(interactions, ReorderedInteractions)
    ends = _sums(interactions, interactions.parts == TRAIN)
    users = np.repeat(np.arange(catalog.num_users), np.diff(interactions.offsets))
    positions = np.arange(len(interactions)) - interactions.offsets[users]

    def targets(part: int) -> Targets:
        chosen = np.flatnonzero((interactions.parts == part) & (ends[users] >= config.min_history))
        # An item that a user took twice in this part is one target: the ideal ranking lists it once.
        pairs = users[chosen] * catalog.num_items + interactions.items[chosen]
        chosen = chosen[np.sort(np.unique(pairs, return_index=True)[1])]
        who = users[chosen]
        lengths = ends[who].astype(np.int32)
        return Targets(who.astype(np.int32), positions[chosen].astype(np.int32), lengths)

    return ends.astype(np.int32), targets(VALIDATION), targets(TEST), None


def _choose_cuts(times: NDArray[np.int64], config: SplitConfig) -> tuple[int, int]:
    """The two moments with the nearest shares after them; what happens at once stays together."""
    check_fractions(config)
    validation, test = config.validation_fraction, config.test_fraction
    moments, counts = np.unique(times, return_counts=True)
    if len(moments) < 3:
        raise VitrineError(
            f"all interactions happen at {len(moments)} distinct times, and a global-time split "
            "needs three; set split.kind: leave-one-out."
        )
    after = counts[::-1].cumsum()[::-1] / counts.sum()  # (num_moments,) share at or after each
    second = int(np.argmin(np.abs(after[2:] - test))) + 2
    first = int(np.argmin(np.abs(after[1:second] - test - validation))) + 1
    return int(moments[first]), int(moments[second])


def _count_before(interactions: Interactions, moment: int) -> NDArray[np.int64]:
    """How many of each person's interactions lie before the moment: (num_users,)."""
    return _sums(interactions, interactions.times < moment)


def _sums(interactions: Interactions, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of each person's interactions are `counted` (num_interactions,): (num_users,)."""
    earlier = np.concatenate([[0], np.cumsum(counted)])
    return earlier[interactions.offsets[1:]] - earlier[interactions.offsets[:-1]]


def _targets(chosen: NDArray[np.bool_], positions: NDArray[np.int64]) -> Targets:
    return Targets(np.flatnonzero(chosen).astype(np.int32), positions[chosen].astype(np.int32))


def without_test_targets(catalog: Catalog, split: Split) -> tuple[Catalog, Split]:
    """Both as they would be had nobody yet taken a test target, or anything after it.

    What chooses among settings is given this: it cannot look at test targets, as there are none.
    """
    interactions = catalog.interactions
    ends = np.diff(interactions.offsets).astype(np.int32)
    first = split.test.first_per_user()
    ends[first.users] = first.positions
    kept = training_mask(interactions, ends)
    before = Interactions(
        offsets=np.concatenate([[0], np.cumsum(ends, dtype=np.int64)]),
        items=interactions.items[kept],
        times=interactions.times[kept],
    )
    none = split.test.take(np.empty(0, dtype=np.int64))
    return replace(catalog, interactions=before), replace(split, test=none)


def target_rows(interactions: Interactions, targets: Targets) -> NDArray[np.int64]:
    """The rows of the interactions that are to be predicted: int64 (targets,)."""
    return interactions.offsets[targets.users] + targets.positions


def repeated_target_mask(interactions: Interactions, targets: Targets) -> NDArray[np.bool_]:
    """Which targets' items are in the history before them: bool (targets,)."""
    num_items = int(interactions.items.max(initial=0)) + 1
    users = np.repeat(np.arange(len(interactions.offsets) - 1), np.diff(interactions.offsets))
    pairs = users * num_items + interactions.items
    known, first = np.unique(pairs, return_index=True)  # where each user first met each item
    rows = target_rows(interactions, targets)
    met = first[np.searchsorted(known, pairs[rows])]
    return met < interactions.offsets[targets.users] + targets.history_lengths


def training_mask(interactions: Interactions, ends: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which interactions lie before their person's `ends` (num_users,): bool (num_interactions,)."""
    lengths = np.diff(interactions.offsets)
    positions = np.arange(len(interactions)) - np.repeat(interactions.offsets[:-1], lengths)
    return positions < np.repeat(ends, lengths)


def train_user_items(catalog: Catalog, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(people, items), int64 (num_pairs,) each: what everybody took in training, person by person."""
    interactions = catalog.interactions
    mask = training_mask(interactions, split.train_end)
    users = np.repeat(np.arange(catalog.num_users), np.diff(interactions.offsets))
    return users[mask], interactions.items[mask].astype(np.int64)


def _train_counts(
    interactions: Interactions, ends: NDArray[np.int32], num_items: int
) -> NDArray[np.int64]:
    return np.bincount(interactions.items[training_mask(interactions, ends)], minlength=num_items)


def _cold_fraction(
    interactions: Interactions, targets: Targets, counts: NDArray[np.int64]
) -> float:
    if not len(targets):
        return 0.0
    items = interactions.items[target_rows(interactions, targets)]
    return float(np.mean(counts[items] == 0))
