"""Facts of a catalog, of one item, or of one user, as lines of text."""

from pathlib import Path
from typing import Any

import numpy as np

from catalog.catalog import Catalog
from catalog.doctor.facts import moment
from catalog.errors import BrokenFileError
from catalog.images import read_image_shape

MAX_LINES = 200
"""Interactions of a user that are listed: the latest ones."""


def catalog_lines(catalog: Catalog) -> list[str]:
    """How many there are of what."""
    times = catalog.interactions.times
    facts = {
        "users": f"{catalog.num_users:,}",
        "items": f"{catalog.num_items:,}",
        "interactions": f"{len(catalog.interactions):,}",
        "times": f"{moment(int(times.min()))} to {moment(int(times.max()))}"
        if catalog.has_timestamps and len(times)
        else "none",
    }
    return [catalog.name, *_aligned(facts)]


def item_lines(catalog: Catalog, item: int) -> list[str]:
    """Every field of an item, its popularity, and where its image is."""
    row = catalog.items[item]
    items = catalog.interactions.items
    counts = np.bincount(items, minlength=catalog.num_items)
    rank = int((counts > counts[item]).sum()) + 1
    facts: dict[str, Any] = {
        name: row[name] for name in ("title", "text", "category", "price") if row[name] is not None
    }
    facts["image"] = _image(row["image"])
    facts["popularity"] = f"{counts[item]:,} interactions, rank {rank:,} of {catalog.num_items:,}"
    lines = [f"item {row['item_id']}", *_aligned(facts)]
    own = {name: catalog.columns[name][item].as_py() for name in catalog.columns.column_names}
    return [*lines, "", "columns of the table", *_aligned(own)]


def _image(path: str | None) -> str:
    if path is None:
        return "none"
    try:
        height, width = read_image_shape(path)
        size = Path(path).stat().st_size
    except (BrokenFileError, OSError) as reason:
        return f"{path} (cannot be read: {reason})"
    return f"{path} ({width} × {height} pixels, {size / 1000:,.1f} kB)"


def user_lines(catalog: Catalog, user: int) -> list[str]:
    """A user's interactions, oldest first, with time, item id and title."""
    interactions = catalog.interactions
    begin, end = (int(one) for one in interactions.offsets[user : user + 2])
    lines = [f"user {catalog.user_ids[user]}: {end - begin:,} interactions"]
    first = max(begin, end - MAX_LINES)
    if first > begin:
        lines.append(f"  … {first - begin:,} earlier ones")
    for row in range(first, end):
        item = catalog.items[int(interactions.items[row])]
        when = moment(int(interactions.times[row])) if catalog.has_timestamps else str(row - begin)
        rating = "" if interactions.ratings is None else f"  {interactions.ratings[row]:g}"
        lines.append(f"  {when}  {item['item_id']}{rating}  {item['title'] or '(no title)'}")
    return lines


def _aligned(facts: dict[str, Any]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in facts.items()]
