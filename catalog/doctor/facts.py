"""Facts of a catalog for the report: counts, ranges, roles, and distributions of four quantities."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.doctor.context import Context
from catalog.doctor.finding import Distribution

PERIODS = 24
"""Bars at most of the interactions over time."""


def facts(context: Context) -> dict[str, str]:
    """Name → value, in the order of the report."""
    catalog = context.catalog
    return {
        "users": f"{catalog.num_users:,}",
        "items": f"{catalog.num_items:,}",
        "interactions": f"{len(catalog.interactions):,}",
        "history lengths": _history_lengths(catalog),
        "times": _time_range(catalog),
        **_presence(context),
        "item columns": _roles(catalog.roles["items"]),
        "interaction columns": _roles(catalog.roles["interactions"]),
    }


def _history_lengths(catalog: Catalog) -> str:
    quantiles = np.quantile(np.diff(catalog.interactions.offsets), [0, 0.25, 0.5, 0.75, 1])
    least, low, median, high, most = (f"{value:g}" for value in quantiles)
    return f"median {median}; half of all users {low} to {high}; all {least} to {most}"


def _time_range(catalog: Catalog) -> str:
    if not catalog.has_timestamps:
        return "none; each user's items are in order"
    if "time" not in catalog.roles["interactions"]:
        return "none; the file's order counts"
    times = catalog.interactions.times
    parts = (times[rows] for _, rows in catalog.interactions.chunks() if rows.stop > rows.start)
    ends = [end for part in parts for end in (int(part.min()), int(part.max()))]
    first, last = min(ends), max(ends)
    return f"{moment(first)} to {moment(last)}"


def moment(value: int) -> str:
    """A date where the number can be one (seconds, milli- or microseconds since 1970)."""
    for unit in (1, 1_000, 1_000_000):
        if 100_000_000 <= value // unit < 10_000_000_000:
            return datetime.fromtimestamp(value / unit, UTC).strftime("%Y-%m-%d")
    return str(value)


def _presence(context: Context) -> dict[str, str]:
    num = context.catalog.num_items
    with_text = context.text_lengths > 0
    with_image = np.zeros(num, bool)
    with_image[context.pictures.items] = True
    return {
        "items with text": _share(with_text.sum(), num),
        "items with an image": _share(with_image.sum(), num),
        "items with both": _share((with_text & with_image).sum(), num),
        "items with neither": _share((~with_text & ~with_image).sum(), num),
    }


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"


def _roles(roles: dict[str, Any]) -> str:
    pairs = (
        (role, ", ".join(column) if isinstance(column, list) else column)
        for role, column in roles.items()
    )
    return "; ".join(f"{role} = {column}" for role, column in pairs if column)


def distributions(context: Context) -> list[Distribution]:
    """Of history lengths, popularity, text lengths, and times where there are dates."""
    lengths = np.diff(context.catalog.interactions.offsets)
    found = [
        doubling("Length of histories", "users", lengths),
        doubling("Popularity of items, in interactions", "items", context.popularity),
        doubling("Length of texts, in characters", "items", context.text_lengths),
    ]
    if context.time_unit is not None:
        found.append(_over_time(context, context.time_unit))
    return found


def doubling(title: str, unit: str, values: NDArray[np.integer]) -> Distribution:
    """Counts of values (n,) that are 0, 1, 2–3, 4–7, and so on."""
    bins = np.zeros(len(values), np.int64)
    positive = values > 0
    bins[positive] = np.floor(np.log2(values[positive])).astype(np.int64) + 1
    counts = np.bincount(bins)
    labels = ["0", "1", *(f"{2**n:,}–{2 ** (n + 1) - 1:,}" for n in range(1, len(counts) - 1))]
    low = next((n for n, count in enumerate(counts) if count), 0)
    return Distribution(title, unit, labels[low : len(counts)], counts[low:].tolist())


def _over_time(context: Context, unit: int) -> Distribution:
    """Interactions in equal periods between the 0.1 and 99.9 % quantiles; the ends hold those outside."""
    low, high = np.quantile(context.sampled_times // unit, [0.001, 0.999])
    low, high = np.floor(low / 86_400), np.floor(high / 86_400) + 1
    num = int(min(PERIODS, high - low))
    edges = np.linspace(low, high, num + 1) * 86_400
    counts = np.zeros(num, np.int64)
    for _, rows in context.catalog.interactions.chunks():
        seconds = context.catalog.interactions.times[rows] // unit
        places = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, num - 1)
        counts += np.bincount(places, minlength=num)
    labels = [datetime.fromtimestamp(edge, UTC).strftime("%Y-%m-%d") for edge in edges[:-1]]
    return Distribution("Interactions over time", "interactions", labels, counts.tolist())
