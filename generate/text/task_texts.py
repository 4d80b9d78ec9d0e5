"""True texts of the writing tasks in one catalog: training targets and references of the text generator."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.columns import as_text
from catalog.errors import VitrineError, did_you_mean
from generate.next_items import NextItemPairs
from generate.text.clean import short_title
from generate.text.keywords import KeywordIndex
from generate.text.tasks import USER_FIELDS, Task, fields_of, fill, load_task

Indices = NDArray[np.integer]
SENTENCE = re.compile(r".+?[.!?…](?=\s|$)", re.DOTALL)


class TaskTexts:
    """Computes the text of a task for an interaction or an item of one catalog."""

    def __init__(
        self, catalog: Catalog, tasks: Sequence[Task], keyword_index: KeywordIndex | None = None
    ) -> None:
        """Raises VitrineError for a field that the catalog lacks, and for two tasks of one name."""
        names = [task.name for task in tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise VitrineError(f"two tasks are called {twice}; rename the file of one of them.")
        self.catalog = catalog
        self.keyword_index = keyword_index or KeywordIndex(catalog)
        self.tasks = {task.name: task for task in tasks}
        computed: dict[str, Callable[[int, int], str | None]] = {
            "sentence": lambda item, _: self._sentence(item),
            "keywords": lambda item, _: ", ".join(self.keyword_index.keywords(item)),
            "review": lambda _, row: self._review(row),
        }
        self._columns: dict[str, Callable[[int, int], str | None]] = {}
        for task in tasks:
            for field in task.fields - {"shared"}:
                if field not in computed and not catalog.has_column(field):
                    known = [*computed, "shared", *catalog.items.column_names]
                    known += catalog.columns.column_names
                    raise VitrineError(
                        f"the task {task.name} reads {{{field}}}, which the catalog {catalog.name} "
                        f"does not have.{did_you_mean(field, known)}"
                    )
                self._columns[field] = computed.get(field) or self._column(field)

    def texts_of(self, task: str, users: Indices, positions: Indices) -> list[str | None]:
        """The text of each (user, position in their history): stripped, None where there is none."""
        interactions = self.catalog.interactions
        rows = np.asarray(interactions.offsets)[users] + positions
        items = np.asarray(interactions.items)[rows]
        return [
            self._text(self.tasks[task], int(item), int(row), int(user), int(position))
            for item, row, user, position in zip(items, rows, users, positions, strict=True)
        ]

    def texts(self, task: str, pairs: NextItemPairs, at_most: int | None = None) -> Iterator[str]:
        """Iterates over the texts of the pairs; a text of the item alone repeats with each of its pairs.

        `at_most`: evenly spaced pairs, at most this many; None: all.
        """
        stride = 1 if at_most is None else -(-len(pairs) // at_most)
        users, positions = pairs.users[::stride], pairs.positions[::stride]
        for start in range(0, len(users), 1024):
            part = slice(start, start + 1024)
            yield from filter(None, self.texts_of(task, users[part], positions[part]))

    def item_text(self, task: Task, item: int) -> str | None:
        """The catalog's text of an item for a task; None where it depends on the user."""
        return self._text(task, item)

    def has_text(self, task: str, pairs: NextItemPairs, chunk: int = 4096) -> NDArray[np.bool_]:
        """Which pairs have a text for the task: bool (num_pairs,)."""
        present = np.zeros(len(pairs), dtype=bool)
        for start in range(0, len(pairs), chunk):
            part = slice(start, start + chunk)
            texts = self.texts_of(task, pairs.users[part], pairs.positions[part])
            present[part] = [text is not None for text in texts]
        return present

    def _text(
        self, task: Task, item: int, row: int = -1, user: int = -1, position: int = 0
    ) -> str | None:
        """The first template whose fields are all known; user −1: only templates without user fields."""
        for template in task.templates:
            values: dict[str, str] = {}
            for field in fields_of(template):
                if user < 0 and field in USER_FIELDS:
                    value = None
                elif field == "shared":
                    history = self.catalog.interactions.history(user)[:position]
                    value = " and ".join(self.keyword_index.shared_keywords(item, history))
                else:
                    value = self._columns[field](item, row)
                if not value or not value.strip():
                    break
                values[field] = value.strip()
            else:
                return fill(template, values)
        return None

    def _column(self, name: str) -> Callable[[int, int], str | None]:
        column = as_text(self.catalog.column(name), name)
        if name == "title":
            return lambda item, _: short_title(column[item].as_py() or "")
        return lambda item, _: column[item].as_py()

    def _sentence(self, item: int) -> str | None:
        text = self._text_column[item].as_py()
        if text is None:
            return None
        first = SENTENCE.match(text.strip())
        return first[0] if first else text

    @cached_property
    def _text_column(self) -> pa.ChunkedArray:
        return self.catalog.column("text")

    def _review(self, row: int) -> str | None:
        texts = self.catalog.interactions.reviews
        return None if texts is None else texts[row]


def tasks_with_texts(
    catalog: Catalog, names: Sequence[str], pairs: NextItemPairs
) -> tuple[TaskTexts, tuple[str, ...]]:
    """The texts of those tasks that have at least one among the pairs, and the names of the others.

    Raises VitrineError for a task that is unknown, and where none has texts.
    """
    tasks = [load_task(name) for name in names]
    texts = TaskTexts(catalog, tasks)
    kept = [task for task in tasks if next(texts.texts(task.name, pairs), None) is not None]
    if not kept:
        raise VitrineError(
            f"catalog '{catalog.name}' has no texts for {', '.join(names) or 'any task'}; give its "
            "items a title or text, or its interactions a review"
        )
    texts.tasks = {task.name: task for task in kept}
    return texts, tuple(task.name for task in tasks if task not in kept)
