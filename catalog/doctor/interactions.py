"""Checks of interactions: copies, impossible and equal times, bursts, bots, and how many there are."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from catalog.doctor.context import Context
from catalog.doctor.finding import Finding, finding

DAY = 86_400
EARLIEST = 631_152_000
"""1990-01-01 in seconds since 1970."""
EQUAL_SHARE, EQUAL_LENGTH = 0.05, 3
BURSTS = {"minute": (60, 20), "day": (DAY, 50)}
"""Window → its seconds, and interactions that are a burst at least."""
BURST_FACTOR, USUAL = 5, 0.95
"""How many times the window of the `USUAL` quantile of users a burst is."""
REGULAR = 10
SINGLE_SHARE, NEVER_SHARE = 0.5, 0.2


def duplicate_interactions(context: Context) -> Iterable[Finding]:
    """Rows that repeat user, item and time of another."""
    interactions = context.catalog.interactions
    users = context.users
    order = np.lexsort([interactions.items, interactions.times, users])
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for keys in (users, interactions.times, interactions.items):
        same &= np.diff(keys[order]) == 0
    # Without times a repeated purchase cannot be distinguished from a duplicate row.
    if not same.any():
        return []
    copies = order[1:][same]
    user = context.catalog.user_ids[users[copies[0]]]
    what = (
        f"{len(copies):,} interactions repeat another (same user, item and time), first of {user}"
    )
    return [
        finding(
            "duplicate-interactions",
            what,
            count=len(copies),
            examples=tuple(context.ids("interactions", copies[:3].tolist())),
            unit="interactions",
            rows=np.sort(copies),
        )
    ]


def impossible_times(context: Context) -> Iterable[Finding]:
    """Interactions in the future, and before 1990 where most are later."""
    unit = context.time_unit
    if unit is None:
        return
    seconds = context.catalog.interactions.times / unit
    rows = np.flatnonzero(seconds > context.now + DAY)
    sentence = "{n} interactions are in the future"
    yield from context.found("future-interactions", rows, sentence, "interactions")
    if np.median(seconds) > EARLIEST:
        rows = np.flatnonzero(seconds < EARLIEST)
        sentence = "{n} interactions are before 1990"
        yield from context.found("ancient-interactions", rows, sentence, "interactions")


def equal_times(context: Context) -> Iterable[Finding]:
    """Users whose interactions all have one time."""
    interactions = context.catalog.interactions
    if not context.catalog.has_timestamps:
        return []
    lengths = np.diff(interactions.offsets)
    long = np.flatnonzero(lengths >= EQUAL_LENGTH)
    first = interactions.times[interactions.offsets[long]]
    last = interactions.times[interactions.offsets[long + 1] - 1]  # histories are sorted by time
    rows = long[first == last]
    if len(rows) < EQUAL_SHARE * len(long):
        return []
    sentence = (
        f"{{n}} of {len(long):,} users with {EQUAL_LENGTH} interactions or more have one time"
    )
    return context.found("equal-times", rows, sentence, "users")


def burst_users(context: Context) -> Iterable[Finding]:
    """Users with far more interactions in a minute or a day than others."""
    unit = context.time_unit
    if unit is None:
        return []
    times = context.catalog.interactions.times // unit
    if not (times % DAY).any():
        windows = {"day": BURSTS["day"]}  # dates without a time of day
    else:
        windows = BURSTS
    found, most = [np.empty(0, np.int64)], np.zeros(context.catalog.num_users, np.int64)
    for seconds, least in windows.values():
        counts = _most_in_window(context, times // seconds)
        usual = np.quantile(counts[counts > 0], USUAL)
        bursts = np.flatnonzero((counts >= least) & (counts >= BURST_FACTOR * usual))
        found.append(bursts)
        most[bursts] = np.maximum(most[bursts], counts[bursts])
    rows = np.unique(np.concatenate(found))
    worst = rows[np.argsort(-most[rows], kind="stable")]
    sentence = "{n} users have bursts of far more interactions than others"
    return context.found("burst-users", rows, sentence, "users", first=worst)


def _most_in_window(context: Context, windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each user's largest number of interactions (num_users,) in one window (num_interactions,)."""
    users = context.users
    changes = np.flatnonzero((np.diff(users) != 0) | (np.diff(windows) != 0)) + 1
    starts = np.concatenate([[0], changes])
    counts = np.diff(np.concatenate([starts, [len(users)]]))
    most = np.zeros(context.catalog.num_users, np.int64)
    np.maximum.at(most, users[starts], counts)
    return most


def regular_users(context: Context) -> Iterable[Finding]:
    """Users whose interactions follow each other at exactly equal intervals."""
    if context.time_unit is None:
        return []
    times, users = context.catalog.interactions.times, context.users
    gaps = np.diff(times)
    inside = users[1:] == users[:-1]
    gaps, owners = gaps[inside], users[1:][inside]
    if not len(gaps):
        return []
    starts = np.flatnonzero(np.concatenate([[True], np.diff(owners) != 0]))
    least = np.minimum.reduceat(gaps, starts)
    most = np.maximum.reduceat(gaps, starts)
    counts = np.diff(np.concatenate([starts, [len(owners)]]))
    regular = (counts >= REGULAR - 1) & (least == most) & (least > 0)
    sentence = "{n} users interact at exactly equal intervals"
    return context.found("regular-users", owners[starts][regular], sentence, "users")


def sparse(context: Context) -> Iterable[Finding]:
    """Users with one interaction, items with none."""
    lengths = np.diff(context.catalog.interactions.offsets)
    single = np.flatnonzero(lengths == 1)
    if len(single) > SINGLE_SHARE * len(lengths):
        share = len(single) / len(lengths)
        sentence = f"{{n}} users ({share:.0%}) have one interaction"
        yield from context.found("single-interaction-users", single, sentence, "users")
    never = np.flatnonzero(context.popularity == 0)
    if len(never) > NEVER_SHARE * context.catalog.num_items:
        share = len(never) / context.catalog.num_items
        sentence = f"{{n}} items ({share:.0%}) have no interaction"
        yield from context.found("never-interacted", never, sentence)


CHECKS = (
    duplicate_interactions,
    impossible_times,
    equal_times,
    burst_users,
    regular_users,
    sparse,
)
