"""Splits histories into training, validation and test: temporal, leave-one-out, random or given."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.cut_times import choose_cuts
from catalog.errors import VitrineError, did_you_mean
from catalog.interactions import Interactions
from catalog.reorder import (
    SPLITTERS,
    TEST,
    TRAIN,
    VALIDATION,
    ReorderedInteractions,
    reorder_histories,
)


@dataclass(frozen=True, eq=False)
class Targets:
    """Held-out items, each to be predicted from the first `history_lengths` interactions of its user.

    A user has at most one in a temporal or leave-one-out split, and may have several in a random or
    given split.
    """

    users: NDArray[np.int32]
    """(num_targets,), ascending."""
    positions: NDArray[np.int32]
    """(num_targets,): position in the user's own history."""
    visible_lengths: NDArray[np.int32] | None = None
    """(num_targets,): `history_lengths`, if interactions between history and target must not be read."""
    repeats: str = "drop"
    """Whether items of the history are candidates; see `SplitConfig.repeats`."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def history_lengths(self) -> NDArray[np.int32]:
        """(num_targets,): number of interactions, from the user's first, that are the history."""
        return self.positions if self.visible_lengths is None else self.visible_lengths

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "Targets":
        """The targets at these indices, or of this mask."""
        lengths = None if self.visible_lengths is None else self.visible_lengths[chosen]
        return Targets(self.users[chosen], self.positions[chosen], lengths, self.repeats)

    def first_per_user(self) -> "Targets":
        """The first target of each user."""
        return self.take(np.unique(self.users, return_index=True)[1])

    def sample_users(self, max_users: int) -> "Targets":
        """All targets of at most `max_users` users, drawn uniformly, always the same ones."""
        users = np.unique(self.users)
        drawn = np.random.default_rng(0).permutation(len(users))[:max_users]
        return self.take(np.isin(self.users, users[drawn]))

    def history(self, interactions: Interactions, index: int) -> NDArray[np.int32]:
        """The items before target number `index`, oldest first: int32 (length,)."""
        begin = interactions.offsets[self.users[index]]
        return interactions.items[begin : begin + self.history_lengths[index]]


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test parts of all histories; a training history is items[:train_end]."""

    config: SplitConfig
    train_end: NDArray[np.int32]
    """(num_users,)"""
    validation: Targets
    test: Targets
    train_counts: NDArray[np.int64]
    """(num_items,): how often each item occurs in training."""
    cut_times: tuple[int, int] | None = None
    """Temporal split: the first times of validation and of test, in the catalog's unit of time."""
    cold_fractions: dict[str, float] = field(default_factory=dict)
    """validation, test → fraction of cold-start targets, whose item never occurs in training."""
    source_rows: NDArray[np.int64] | None = None
    """Random and given splits: row of each interaction before reordering."""
    num_repeated: dict[str, int] = field(default_factory=dict)
    """validation, test → number of targets that are in their own history; `repeats: drop` removes them."""

    @property
    def warm_items(self) -> NDArray[np.bool_]:
        """bool (num_items,): items that occur in training; the others are cold."""
        return self.train_counts > 0

    @property
    def hash(self) -> str:
        """sha256 of the held-out positions; equal for equal splits, whatever their settings."""
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
        """For a manifest: settings, cut times, counts, fractions of cold targets, and the hash."""
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
    """Loads a catalog, reorders its histories where the split needs it, and splits them.

    Raises VitrineError as `load_catalog`, `reorder_histories` and `make_split` do.
    """
    reordered = reorder_histories(load_catalog(catalog), split)
    return reordered, make_split(reordered, split)


def make_split(catalog: Catalog, config: SplitConfig) -> Split:
    """Splits every history into training, validation and test parts.

    temporal: two times, chosen so that about the given fractions of all interactions are later; a
    target is the user's first item of its period. leave-one-out: a user's last item is the test
    target and the one before it the validation target; histories of fewer than three interactions,
    or too short for a test target, are training data. random, given: each item of a user's
    validation or test part is a target once, and its history is the user's training part.
    `repeats: drop` removes targets that are in their own history.
    Raises VitrineError for impossible settings, and for a temporal split without timestamps.
    """
    kinds = {
        "temporal": _temporal_split,
        "leave-one-out": _leave_one_out_split,
        **dict.fromkeys(SPLITTERS, _reordered_split),
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
        raise ValueError("the histories were not reordered for this split")
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
SplitParts = tuple[NDArray[np.int32], Targets, Targets, tuple[int, int] | None]


def _leave_one_out_split(catalog: Catalog, config: SplitConfig) -> SplitParts:
    lengths = np.diff(catalog.interactions.offsets)
    held_out = lengths >= max(3, config.min_history + 1)
    ends = np.where(held_out, lengths - 2, lengths)
    return (
        ends.astype(np.int32),
        _targets(held_out & (lengths - 2 >= config.min_history), lengths - 2),
        _targets(held_out, lengths - 1),
        None,
    )


def _temporal_split(catalog: Catalog, config: SplitConfig) -> SplitParts:
    if not catalog.has_timestamps:
        raise VitrineError(
            f"the catalog {catalog.name} orders each user's items but has no timestamps, so it cannot be "
            "split by time; set split.kind: leave-one-out."
        )
    interactions = catalog.interactions
    first, second = choose_cuts(interactions.times, config)
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


def _reordered_split(catalog: Catalog, config: SplitConfig) -> SplitParts:
    interactions = catalog.interactions
    assert isinstance(interactions, ReorderedInteractions)
    ends = _count_per_user(interactions, lambda rows: interactions.parts[rows] == TRAIN)
    users = np.repeat(np.arange(catalog.num_users), np.diff(interactions.offsets))
    positions = np.arange(len(interactions)) - interactions.offsets[users]

    def targets(part: int) -> Targets:
        chosen = np.flatnonzero((interactions.parts == part) & (ends[users] >= config.min_history))
        # A repeated item of one part is one target: the ideal ranking lists it once.
        pairs = users[chosen] * catalog.num_items + interactions.items[chosen]
        chosen = chosen[np.sort(np.unique(pairs, return_index=True)[1])]
        owners = users[chosen]
        lengths = ends[owners].astype(np.int32)
        return Targets(owners.astype(np.int32), positions[chosen].astype(np.int32), lengths)

    return ends.astype(np.int32), targets(VALIDATION), targets(TEST), None


def _count_before(interactions: Interactions, time: int) -> NDArray[np.int64]:
    """Number of each user's interactions before a time: (num_users,)."""
    return _count_per_user(interactions, lambda rows: interactions.times[rows] < time)


def _count_per_user(
    interactions: Interactions, mask: Callable[[slice], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """Number of each user's interactions where `mask` (rows → bool) is true: int64 (num_users,)."""
    counts = np.empty(len(interactions.offsets) - 1, dtype=np.int64)
    for users, rows in interactions.chunks():
        earlier = np.concatenate([[0], np.cumsum(mask(rows))])
        bounds = interactions.offsets[users.start : users.stop + 1] - rows.start
        counts[users] = np.diff(earlier[bounds])
    return counts


def _targets(chosen: NDArray[np.bool_], positions: NDArray[np.int64]) -> Targets:
    return Targets(np.flatnonzero(chosen).astype(np.int32), positions[chosen].astype(np.int32))


def without_test_targets(catalog: Catalog, split: Split) -> tuple[Catalog, Split]:
    """The catalog and the split without test targets and the interactions after them.

    A hyperparameter search uses these, so that it cannot read the test targets.
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
    """Rows of the interactions that are to be predicted: int64 (num_targets,)."""
    return interactions.offsets[targets.users] + targets.positions


def repeated_target_mask(interactions: Interactions, targets: Targets) -> NDArray[np.bool_]:
    """Targets whose item is in the history before them: bool (num_targets,)."""
    repeated = np.zeros(len(targets), dtype=np.bool_)
    rows = target_rows(interactions, targets)
    ends = interactions.offsets[targets.users] + targets.history_lengths
    for users, part in interactions.chunks():
        chosen = slice(*np.searchsorted(targets.users, [users.start, users.stop]))
        if chosen.start == chosen.stop:
            continue
        items = interactions.items[part].astype(np.int64)
        owners = np.repeat(
            np.arange(users.stop - users.start),
            np.diff(interactions.offsets[users.start : users.stop + 1]),
        )
        pairs = owners * (int(items.max()) + 1) + items
        # Each user's first interaction with each item.
        unique, first = np.unique(pairs, return_index=True)
        earliest = first[np.searchsorted(unique, pairs[rows[chosen] - part.start])] + part.start
        repeated[chosen] = earliest < ends[chosen]
    return repeated


def training_mask(interactions: Interactions, ends: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Interactions before their user's `ends` (num_users,): bool (num_interactions,)."""
    mask = np.empty(len(interactions), dtype=np.bool_)
    for users, rows in interactions.chunks():
        mask[rows] = _in_training(interactions, ends, users)
    return mask


def _in_training(
    interactions: Interactions, ends: NDArray[np.int32], users: slice
) -> NDArray[np.bool_]:
    lengths = np.diff(interactions.offsets[users.start : users.stop + 1])
    return interactions.positions(users) < np.repeat(ends[users], lengths)


def train_user_items(catalog: Catalog, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(users, items), int64 (num_pairs,) each: all training interactions, user by user."""
    interactions = catalog.interactions
    mask = training_mask(interactions, split.train_end)
    users = np.repeat(np.arange(catalog.num_users), np.diff(interactions.offsets))
    return users[mask], interactions.items[mask].astype(np.int64)


def _train_counts(
    interactions: Interactions, ends: NDArray[np.int32], num_items: int
) -> NDArray[np.int64]:
    counts = np.zeros(num_items, dtype=np.int64)
    for users, rows in interactions.chunks():
        items = interactions.items[rows][_in_training(interactions, ends, users)]
        counts += np.bincount(items, minlength=num_items)
    return counts


def _cold_fraction(
    interactions: Interactions, targets: Targets, counts: NDArray[np.int64]
) -> float:
    if not len(targets):
        return 0.0
    items = interactions.items[target_rows(interactions, targets)]
    return float(np.mean(counts[items] == 0))
