"""Faults that are planted in interactions; nothing here uses the code that finds them."""

from collections import Counter

import numpy as np

from benchmarks.planted_tables import YEAR, Copy, Fault, Row, key_of

DAY = 86_400


def some_rows(copy: Copy, rng: np.random.Generator, count: int) -> list[Row]:
    return [copy.rows[place] for place in rng.permutation(len(copy.rows))[:count]]


def some_users(copy: Copy, rng: np.random.Generator, count: int, least: int = 1) -> list[str]:
    able = sorted(user for user, rows in copy.histories().items() if len(rows) >= least)
    return [able[place] for place in rng.permutation(len(able))[:count]]


def unknown(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    added = [{**row, "item_id": f"gone-{n}"} for n, row in enumerate(some_rows(copy, rng, count))]
    copy.rows += added
    return {key_of(row) for row in added}


def repeated(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    added = [dict(row) for row in some_rows(copy, rng, count)]
    copy.rows += added
    return {key_of(row) for row in added}


def is_repeated(copy: Copy, found: set[str]) -> set[str]:
    counts = Counter((key_of(row), row["time"]) for row in copy.rows)
    return found & {key for (key, _), number in counts.items() if number > 1}


def leaked(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    test = [row for row in copy.rows if row["split"] == "test"]
    chosen = [test[place] for place in rng.permutation(len(test))[:count]]
    copy.rows += [{**row, "split": "train"} for row in chosen]
    return {key_of(row) for row in chosen}


def is_leaked(copy: Copy, found: set[str]) -> set[str]:
    parts = {
        name: {(key_of(row), row["time"]) for row in copy.rows if row["split"] == name}
        for name in ("train", "test")
    }
    return found & {key for key, _ in parts["train"] & parts["test"]}


def simultaneous(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    if not copy.dated:
        return set()
    histories = copy.histories()
    chosen = some_users(copy, rng, len(histories) // 5, least=3)
    for user in chosen:
        for row in histories[user]:
            row["time"] = histories[user][0]["time"]
    return set(chosen)


def is_simultaneous(copy: Copy, found: set[str]) -> set[str]:
    histories = copy.histories()
    return {one for one in found if len({row["time"] for row in histories[one]}) == 1}


def bursting(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    """Users with ten times the interactions in a minute, or a day, of all others."""
    if not copy.dated:
        return set()
    daily = all(row["time"] % DAY == 0 for row in copy.rows)
    window = DAY if daily else 60
    busiest = max(Counter((row["user_id"], row["time"] // window) for row in copy.rows).values())
    number = max(60, 10 * busiest)
    chosen = some_users(copy, rng, 5)
    histories = copy.histories()
    for user in chosen:
        start = histories[user][0]["time"]
        for place in range(number):
            item = copy.items[int(rng.integers(len(copy.items)))]["item_id"]
            row = {**histories[user][0], "item_id": item}
            copy.rows.append({**row, "time": start + (0 if daily else place % 60)})
    return set(chosen)


def regular(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    """Users with twelve interactions at equal intervals."""
    if not copy.dated:
        return set()
    chosen = some_users(copy, rng, 10)
    histories = copy.histories()
    copy.rows = [row for row in copy.rows if row["user_id"] not in set(chosen)]
    daily = all(row["time"] % DAY == 0 for row in copy.rows)
    for user in chosen:
        first = histories[user][0]
        step = DAY if daily else int(rng.integers(600, 90_000))
        for place in range(12):
            item = copy.items[int(rng.integers(len(copy.items)))]["item_id"]
            copy.rows.append({**first, "item_id": item, "time": first["time"] + place * step})
    return set(chosen)


def is_regular(copy: Copy, found: set[str]) -> set[str]:
    histories = copy.histories()

    def steps(user: str) -> set[int]:
        return set(np.diff([row["time"] for row in histories[user]]).tolist())

    return {one for one in found if len(steps(one)) == 1 and len(histories[one]) >= 10}


def future(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = some_rows(copy, rng, count) if copy.dated else []
    for row in chosen:
        row["time"] = copy.now + int(rng.integers(2 * DAY, 10 * YEAR))
    return {key_of(row) for row in chosen}


def ancient(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = some_rows(copy, rng, count) if copy.dated else []
    for number, row in enumerate(chosen):
        row["time"] = 0 if number % 2 else int(rng.integers(0, 10 * YEAR))
    return {key_of(row) for row in chosen}


def is_future(copy: Copy, found: set[str]) -> set[str]:
    return found & {key_of(row) for row in copy.rows if row["time"] > copy.now}


def is_ancient(copy: Copy, found: set[str]) -> set[str]:
    return found & {key_of(row) for row in copy.rows if row["time"] < 20 * YEAR}


INTERACTION_FAULTS: dict[str, Fault] = {
    "unknown-items": Fault(unknown, unit="catalog"),
    "duplicate-interactions": Fault(repeated, is_repeated, "interactions"),
    "split-overlap": Fault(leaked, is_leaked, "interactions"),
    "equal-times": Fault(simultaneous, is_simultaneous, "users"),
    "burst-users": Fault(bursting, None, "users"),
    "regular-users": Fault(regular, is_regular, "users"),
    "future-interactions": Fault(future, is_future, "interactions"),
    "ancient-interactions": Fault(ancient, is_ancient, "interactions"),
}
