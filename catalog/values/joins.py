"""Chooses the id columns of items and interactions by how many ids of one the other holds."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from collections.abc import Callable, Sequence
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from catalog.columns import as_text
from catalog.errors import VitrineError

SAMPLED = 50_000
"""First rows of the interactions whose ids are looked up."""
TOO_FEW = 0.1
"""Share of ids found below which columns that are not called like ids are looked at."""
ENOUGH = 0.5
"""Share of ids that such a column must have."""
BETTER = 0.1
"""By how much the share of another column must be larger."""

ID_HINT = re.compile(r"id$|sku|code|item|product|article|asin|isbn|handle|ean|upc|number|key|ref")
"""What the name of an interactions' column has that may hold ids: a quantity of 3 is no id 3."""
Score = tuple[float, Callable[[], bool]]
"""Share of the interactions' ids that a column of items holds, and whether each item has its own."""
Share = Callable[[str, str], Score]
"""(column of items, of interactions) → how well they join."""


def choose_id_columns(
    items: pa.Table,
    interactions: pa.Table,
    named: tuple[Sequence[str], Sequence[str]],
    free: tuple[Sequence[str], Sequence[str]],
) -> tuple[str, str, float, float]:
    """The id columns of items and interactions, the share of ids found, and that of the first named pair.

    `named`: columns that are called like ids, the most likely first; `free`: all that may be.
    """

    @cache
    def sample(column: str) -> pa.Array | None:
        ids = _plain_ids(interactions[column].slice(0, SAMPLED), column)
        return None if ids is None else pc.unique(ids)

    @cache
    def is_unique(column: str) -> bool:
        ids = _plain_ids(items[column], column)
        return ids is not None and len(pc.unique(ids)) == len(ids)

    @cache
    def share(item: str, interaction: str) -> Score:
        wanted = sample(interaction)
        if wanted is None or not len(wanted):
            return 0.0, lambda: False
        found = pa.array([], pa.large_string())
        for chunk in items[item].chunks:  # the ids of all items are never hashed at once
            ids = _plain_ids(pa.chunked_array([chunk]), item)
            if ids is None:
                return 0.0, lambda: False
            ids = ids.combine_chunks()
            found = pa.concat_arrays([found, ids.filter(pc.is_in(ids, value_set=wanted))])
        return len(pc.unique(found)) / len(wanted), lambda: is_unique(item)

    pairs = [(item, other) for other in named[1] or [""] for item in named[0] or [""]]
    first = _share_or_none(pairs[0], share)
    best, score = _best(pairs, lambda pair: _share_or_none(pair, share))
    if score[0] < TOO_FEW:
        more = [(item, best[1]) for item in free[0] if best[1]]
        more += [(best[0], other) for other in free[1] if best[0] and ID_HINT.search(other.lower())]
        for pair in more:
            found, is_own = share(*pair)
            if found >= ENOUGH and found > score[0] and is_own():
                best, score = pair, (found, is_own)
    return best[0], best[1], score[0], first[0]


def _share_or_none(pair: tuple[str, str], share: Share) -> Score:
    return share(*pair) if all(pair) else (0.0, lambda: False)


def _best(
    pairs: list[tuple[str, str]], share: Callable[[tuple[str, str]], Score]
) -> tuple[tuple[str, str], Score]:
    """The first pair, unless another has clearly more ids, or as many and no repeated ones."""
    best = pairs[0]
    score = share(best)
    for pair in pairs[1:]:
        found, is_own = share(pair)
        if found > score[0] + BETTER:
            better = score[0] == 0 or is_own() or not score[1]()
        else:
            better = found >= score[0] > 0 and is_own() and not score[1]()
        if better:
            best, score = pair, (found, is_own)
    return best, score


def _plain_ids(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray | None:
    """Ids in their text form, without ".0"; None for a column that holds none."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        return None
    try:
        ids = as_text(column, name).drop_null()
    except (VitrineError, pa.ArrowException):
        return None
    return pc.replace_substring_regex(ids, pattern=r"^(-?\d+)\.0+$", replacement=r"\1")
