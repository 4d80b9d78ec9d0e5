"""Finds the attribute columns of the items table: few distinct, short values."""

# pyright: reportAttributeAccessIssue=false
# pyarrow creates the functions of pyarrow.compute at import; type checkers do not see them.

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from catalog.catalog import Catalog
from catalog.columns import as_text
from catalog.errors import VitrineError

MAX_MEAN_LETTERS = 40
"""Mean length of an attribute's value, in letters, at most."""
MAX_MEAN_SPACES = 4
"""Mean number of spaces in a value; an attribute has fewer."""
MAX_SHARE = 0.2
"""An attribute has at most this many distinct values per item: more are names, or descriptions."""
MIN_LIMIT = 20
"""An attribute may always have this many distinct values, as long as some repeat."""


def attribute_columns(catalog: Catalog) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yields the name and the text values of each attribute column of the items table."""
    roles = catalog.roles.get("items", {})
    named = {roles.get(role) for role in ("item_id", "title", "image")}
    most = max(MIN_LIMIT, MAX_SHARE * catalog.num_items)
    columns: list[pa.ChunkedArray] = []
    for name in catalog.columns.column_names:
        column = catalog.columns.column(name)
        if name in named or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
            continue
        try:
            values = as_text(column, name)
        except VitrineError:
            continue
        distinct = values.unique()
        known = len(values) - values.null_count
        if not 2 <= len(distinct) <= min(most, known - 1) or _is_prose(distinct):
            continue
        if any(values.equals(other) for other in columns):
            continue
        columns.append(values)
        yield name, values


def _is_prose(values: pa.Array) -> bool:
    letters = pc.mean(pc.utf8_length(values)).as_py()
    spaces = pc.mean(pc.count_substring(values, " ")).as_py()
    return letters > MAX_MEAN_LETTERS or spaces >= MAX_MEAN_SPACES
