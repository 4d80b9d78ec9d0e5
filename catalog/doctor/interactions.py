"""Checks of interactions: copies, impossible and equal times, bursts, bots, and how many there are."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.doctor.context import Context
from catalog.doctor.finding import Finding, finding
from catalog.interactions import Interactions

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
    parts = [_copies(context.catalog.interactions, *one) for one in _chunks(context)]
    copies = np.concatenate([np.empty(0, np.int64), *parts])
    # Without times a repeated purchase cannot be distinguished from a duplicate row.
    if not len(copies):
        return []
    user = context.catalog.user_ids[context.users_of(copies[:1])[0]]
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


def _chunks(context: Context) -> Iterator[tuple[slice, slice, NDArray[np.int64]]]:
    """(users, rows, the place (num_users + 1,) in these rows at which each user's begin and the last end)
    of `Interactions.chunks`."""
    offsets = context.catalog.interactions.offsets
    for users, rows in context.catalog.interactions.chunks():
        yield users, rows, offsets[users.start : users.stop + 1] - rows.start


def _begins(bounds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each row (n,) is its user's first."""
    begins = np.zeros(bounds[-1] + 1, bool)
    begins[bounds] = True
    return begins[:-1]


def _owners(bounds: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The user (n,), counted from the chunk's first, of rows of a chunk."""
    return np.searchsorted(bounds, places, side="right") - 1


def _copies(
    interactions: Interactions, _: slice, rows: slice, bounds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Interactions (n,) of a chunk that repeat another, by user, time and item."""
    times = interactions.times[rows]
    tied = np.zeros(len(times) + 1, bool)  # with the row before; histories are sorted by time
    tied[1:-1] = (times[1:] == times[:-1]) & ~_begins(bounds)[1:]
    places = np.flatnonzero(tied[:-1] | tied[1:])
    keys = _owners(bounds, places), times[places], interactions.items[rows][places]
    order = np.lexsort(keys[::-1])
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        same &= np.diff(key[order]) == 0
    return rows.start + places[order[1:][same]]


def impossible_times(context: Context) -> Iterable[Finding]:
    """Interactions in the future, and before 1990 where most are later."""
    unit = context.time_unit
    if unit is None:
        return
    future, ancient, num_later = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for _, rows, _ in _chunks(context):
        seconds = context.catalog.interactions.times[rows] / unit
        future.append(rows.start + np.flatnonzero(seconds > context.now + DAY))
        ancient.append(rows.start + np.flatnonzero(seconds < EARLIEST))
        num_later += np.count_nonzero(seconds > EARLIEST)
    sentence = "{n} interactions are in the future"
    yield from context.found(
        "future-interactions", np.concatenate(future), sentence, "interactions"
    )
    if num_later > len(context.catalog.interactions) / 2:
        sentence = "{n} interactions are before 1990"
        rows = np.concatenate(ancient)
        yield from context.found("ancient-interactions", rows, sentence, "interactions")


def equal_times(context: Context) -> Iterable[Finding]:
    """Users whose interactions all have one time."""
    if not context.catalog.has_timestamps:
        return []
    found, num_long = [np.empty(0, np.int64)], 0
    for users, rows, bounds in _chunks(context):
        times = context.catalog.interactions.times[rows]
        long = np.flatnonzero(np.diff(bounds) >= EQUAL_LENGTH)
        # Histories are sorted by time.
        found.append(users.start + long[times[bounds[long]] == times[bounds[long + 1] - 1]])
        num_long += len(long)
    rows = np.concatenate(found)
    if len(rows) < EQUAL_SHARE * num_long:
        return []
    sentence = f"{{n}} of {num_long:,} users with {EQUAL_LENGTH} interactions or more have one time"
    return context.found("equal-times", rows, sentence, "users")


def burst_users(context: Context) -> Iterable[Finding]:
    """Users with far more interactions in a minute or a day than others."""
    unit = context.time_unit
    if unit is None:
        return []
    counts, has_time_of_day = _busiest(context, unit)
    found, most = [np.empty(0, np.int64)], np.zeros(context.catalog.num_users, np.int64)
    for name in BURSTS if has_time_of_day else ("day",):
        least = BURSTS[name][1]
        usual = np.quantile(counts[name][counts[name] > 0], USUAL)
        bursts = np.flatnonzero((counts[name] >= least) & (counts[name] >= BURST_FACTOR * usual))
        found.append(bursts)
        most[bursts] = np.maximum(most[bursts], counts[name][bursts])
    rows = np.unique(np.concatenate(found))
    worst = rows[np.argsort(-most[rows], kind="stable")]
    sentence = "{n} users have bursts of far more interactions than others"
    return context.found("burst-users", rows, sentence, "users", first=worst)


def _busiest(context: Context, unit: int) -> tuple[dict[str, NDArray[np.int64]], bool]:
    """Each user's largest number of interactions (num_users,) in a minute and in a day, and whether any
    time is not a day's first second. `unit`: parts of a second that times count."""
    most = {name: np.zeros(context.catalog.num_users, np.int64) for name in BURSTS}
    has_time_of_day = False
    for users, rows, bounds in _chunks(context):
        seconds = context.catalog.interactions.times[rows] // unit
        has_time_of_day |= bool((seconds % DAY).any())
        for name, (length, _) in BURSTS.items():
            changes = _begins(bounds)
            changes[1:] |= np.diff(seconds // length) != 0
            starts = np.flatnonzero(changes)
            counts = np.diff(starts, append=len(seconds))
            np.maximum.at(most[name][users], _owners(bounds, starts), counts)
    return most, has_time_of_day


def regular_users(context: Context) -> Iterable[Finding]:
    """Users whose interactions follow each other at exactly equal intervals."""
    if context.time_unit is None:
        return []
    found = [np.empty(0, np.int64)]
    for users, rows, bounds in _chunks(context):
        long = np.flatnonzero(np.diff(bounds) >= REGULAR)
        if not len(long):
            continue
        gaps = np.diff(context.catalog.interactions.times[rows], append=0)
        # Of each user's gaps, without the one to the next user.
        ends = np.stack([bounds[long], bounds[long + 1] - 1], axis=1).reshape(-1)
        least, most = (of.reduceat(gaps, ends)[::2] for of in (np.minimum, np.maximum))
        found.append(users.start + long[(least == most) & (least > 0)])
    sentence = "{n} users interact at exactly equal intervals"
    return context.found("regular-users", np.concatenate(found), sentence, "users")


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
