"""Decides whether a delimited file's first row names its columns, and names them."""

import re
from collections.abc import Sequence

from catalog.notes import Notes

LONGEST_NAME = 100
"""Letters of the longest name of a column."""
SHARED = 0.9
"""Share of a column's values that the first row's value must resemble to be one of them."""
REPEATED = 2
"""Later rows that hold a value of the first row, from which on that is a value and no name."""
DATA = re.compile(
    r"\s*(?:[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?|[\[{].*|\w+://.*"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*)\s*$",
    re.DOTALL,
)
"""What names no column: a number, JSON, an address, a date."""
DIGITS = re.compile(r"\d+")
NAMES = frozenset(
    [
        "item_id",
        "item",
        "user_id",
        "user",
        "id",
        "sku",
        "asin",
        "isbn",
        "product_id",
        "movie_id",
        "book_id",
        "article_id",
        "customer_id",
        "title",
        "name",
        "rating",
        "price",
        "timestamp",
        "time",
        "date",
        "category",
        "description",
        "brand",
        "image",
        "url",
    ]
)
"""Names that columns of catalogs have: one of them makes a header."""


def _plain(name: str) -> str:
    return re.sub(r"[\s.:-]+", "_", name.strip().lower())


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns, by the rows that follow it."""
    if [cell.strip() for cell in first] == [str(number) for number in range(len(first))]:
        return True
    if any(_plain(cell) in NAMES for cell in first):
        return True
    if not any(cell.strip() for cell in first):
        return False
    if any(len(cell) > LONGEST_NAME or "\n" in cell for cell in first):
        return False
    # A number may name a column, such as a year, but not the first.
    if any(DATA.match(cell) for cell in first):
        return False
    for place, cell in enumerate(first):
        column = [row[place] for row in rows if place < len(row) and list(row) != list(first)]
        if not column or not cell:
            continue
        if column.count(cell) >= REPEATED:
            return False
        shape = DIGITS.sub("#", cell)
        alike = sum(DIGITS.sub("#", other) == shape for other in column)
        if "#" in shape and alike >= SHARED * len(column):
            return False
    return True


def column_names(given: Sequence[str], where: str, notes: Notes) -> list[str]:
    """Names that are not blank and all different, by a header's cells."""
    names: list[str] = []
    repeated: list[str] = []
    taken = {cell.strip() for cell in given}
    for number, cell in enumerate(given, 1):
        name = cell.strip() or f"column_{number}"
        base, copy = name, 2
        while name in names or (name != base and name in taken):
            name = f"{base}.{copy}"
            copy += 1
        if name != base:
            repeated.append(base)
        names.append(name)
    if repeated:
        unique = list(dict.fromkeys(repeated))
        notes.add(
            where,
            f"{len(unique)} names stand for several columns; the first of each keeps it, the next "
            f"are {unique[0]}.2 and so on",
            examples=unique,
            remedy="rename them, or name others with --catalog.roles",
        )
    return names


def is_row_numbers(values: Sequence[str]) -> bool:
    """Whether these are 0, 1, 2, … or 1, 2, 3, …, as pandas writes them before the columns."""
    if not values or not values[0].isdecimal() or int(values[0]) > 1:
        return False
    return list(values) == [str(int(values[0]) + row) for row in range(len(values))]
