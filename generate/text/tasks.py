"""What can be written about an item, and where the words to learn it from are kept."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.conditioning import NextItemPairs

Indices = NDArray[np.integer]


def _descriptions(catalog: Catalog, items: Indices, rows: Indices) -> list[str | None]:
    return [catalog.text_of(int(item)) for item in items]


def _reviews(catalog: Catalog, items: Indices, rows: Indices) -> list[str | None]:
    texts = catalog.interactions.texts
    return [None if texts is None else texts[int(row)] for row in rows]


TASKS: dict[str, Callable[[Catalog, Indices, Indices], list[str | None]]] = {
    "describe": _descriptions,
    "review": _reviews,
}
"""Task → (catalog, items, rows of interactions) → one text each.

`describe` is the item's title and description, `review` what the person said about it. A new task
is one line here; its name gets a learned prompt token of its own.
"""


def texts_of(catalog: Catalog, task: str, users: Indices, positions: Indices) -> list[str | None]:
    """The text of each (person, position in their history): stripped, None where there is none."""
    rows = np.asarray(catalog.interactions.offsets)[users] + positions
    items = np.asarray(catalog.interactions.items)[rows]
    texts = TASKS[task](catalog, items, rows)
    return [text if text and text.strip() else None for text in texts]


def training_texts(
    catalog: Catalog, task: str, pairs: NextItemPairs, at_most: int | None = None
) -> Iterator[str]:
    """Texts of the task among the pairs, in chunks; descriptions repeat with their items.

    `at_most` takes evenly spaced pairs, no more than so many.
    """
    stride = 1 if at_most is None else -(-len(pairs) // at_most)
    users, positions = pairs.users[::stride], pairs.positions[::stride]
    for start in range(0, len(users), 1024):
        part = slice(start, start + 1024)
        yield from filter(None, texts_of(catalog, task, users[part], positions[part]))


def tasks_with_words(
    catalog: Catalog, tasks: Sequence[str], pairs: NextItemPairs
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits `tasks` into those with at least one text among the pairs, and the others.

    Raises VitrineError for a task nobody registered, and where no task has words.
    """
    for task in tasks:
        if task not in TASKS:
            raise VitrineError(f"task '{task}' is unknown; choose from {', '.join(TASKS)}")
    found = tuple(
        task for task in tasks if next(training_texts(catalog, task, pairs), None) is not None
    )
    if not found:
        raise VitrineError(
            f"catalog '{catalog.name}' has no words for {', '.join(tasks) or 'any task'}; give its "
            "items a title or text, or its interactions a review"
        )
    return found, tuple(task for task in tasks if task not in found)
