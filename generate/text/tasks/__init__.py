"""What can be written about an item for a person, and where the words to learn it from are kept.

A task is a YAML file: `about` says in one line what it writes, `words` lists templates, of which the
first whose fields are all known gives the text. Those beside this file come with Vitrine; any other is
named by its path. A field is a column of the items' table, or

    {title} {text} {category} {price}   by their roles; a long title is cut
    {sentence}                          the first sentence of the text
    {keywords}                          the values and words that set the item apart
    {review}                            what this person said of it
    {shared}                            of the keywords those that this person often takes
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.columns import as_text
from catalog.errors import VitrineError, did_you_mean
from catalog.yaml_files import read_yaml
from generate.next_items import NextItemPairs
from generate.text.clean import short_title
from generate.text.facts import Facts

Indices = NDArray[np.integer]
HERE = Path(__file__).parent
SENTENCE = re.compile(r".+?[.!?…](?=\s|$)", re.DOTALL)
OF_THE_PERSON = ("review", "shared")
"""Fields that depend on who takes the item."""


@dataclass(frozen=True)
class Task:
    """One thing to write."""

    name: str
    about: str
    words: tuple[str, ...]
    """Templates, the preferred first."""

    @property
    def fields(self) -> set[str]:
        return {field for template in self.words for field in fields_of(template)}

    @property
    def personal(self) -> bool:
        """Whether two people may say different things of one item."""
        return not self.fields.isdisjoint(OF_THE_PERSON)


def load_task(name: str) -> Task:
    """A task that comes with Vitrine, by its name, or any other, by its file."""
    shipped = {path.stem: path for path in sorted(HERE.glob("*.yaml"))}
    path = shipped.get(name) or Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(shipped)
        raise VitrineError(
            f"task {name!r} is unknown; choose from {known}, or name a file.yaml of your own."
            f"{did_you_mean(name, shipped)}"
        )
    try:
        told = read_yaml(path)
    except OSError as error:
        raise VitrineError(f"the task {path} cannot be read: {error}") from error
    return read_task(path.stem, told, path)


def read_task(name: str, told: Any, where: object) -> Task:
    """From what its file says; VitrineError where that is no task."""
    fault = ""
    if not isinstance(told, dict) or set(told) - {"about", "words"} or not told.get("words"):
        fault = "it takes `about`, one line, and `words`, a list of templates"
    else:
        words = told["words"] if isinstance(told["words"], list) else [told["words"]]
        try:
            if not all(isinstance(one, str) and fields_of(one) for one in words):
                fault = "each of its `words` is a text with at least one {field}"
            elif any(spec or how for one in words for _, _, spec, how in Formatter().parse(one)):
                fault = "its fields are names alone, without `:` or `!`"
        except ValueError as error:
            fault = f"a template is malformed ({error})"
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        fault = "its name is small letters, digits and hyphens"
    if fault:
        raise VitrineError(f"{where} is no task: {fault}")
    return Task(name, str(told.get("about", "")), tuple(words))


def fields_of(template: str) -> list[str]:
    return [field for _, field, _, _ in Formatter().parse(template) if field is not None]


def filled(template: str, values: Mapping[str, str]) -> str:
    """By name, whatever is in it: a column may be called `made.in`."""
    parts = Formatter().parse(template)
    return "".join(text + ("" if field is None else values[field]) for text, field, _, _ in parts)


class Words:
    """The texts that tasks have in one catalog."""

    def __init__(self, catalog: Catalog, tasks: Sequence[Task], facts: Facts | None = None) -> None:
        """Raises VitrineError for a field that the catalog knows nothing of, and for two tasks of one
        name."""
        names = [task.name for task in tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise VitrineError(f"two tasks are called {twice}; rename the file of one of them.")
        self.catalog = catalog
        self.facts = facts or Facts(catalog)
        self.tasks = {task.name: task for task in tasks}
        computed: dict[str, Callable[[int, int], str | None]] = {
            "sentence": lambda item, _: self._sentence(item),
            "keywords": lambda item, _: ", ".join(self.facts.keywords(item)),
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
        """The text of each (person, position in their history): stripped, None where there is none."""
        interactions = self.catalog.interactions
        rows = np.asarray(interactions.offsets)[users] + positions
        items = np.asarray(interactions.items)[rows]
        return [
            self._text(self.tasks[task], int(item), int(row), int(user), int(position))
            for item, row, user, position in zip(items, rows, users, positions, strict=True)
        ]

    def texts(self, task: str, pairs: NextItemPairs, at_most: int | None = None) -> Iterator[str]:
        """Those among the pairs, in chunks; an item's own repeat with it.

        `at_most` takes evenly spaced pairs, no more than so many.
        """
        stride = 1 if at_most is None else -(-len(pairs) // at_most)
        users, positions = pairs.users[::stride], pairs.positions[::stride]
        for start in range(0, len(users), 1024):
            part = slice(start, start + 1024)
            yield from filter(None, self.texts_of(task, users[part], positions[part]))

    def of_item(self, task: Task, item: int) -> str | None:
        """What the catalog says for a task, whoever asks; None where that is a person's to say."""
        return self._text(task, item)

    def _text(
        self, task: Task, item: int, row: int = -1, user: int = -1, position: int = 0
    ) -> str | None:
        """Without a person, from templates that say nothing of one."""
        for template in task.words:
            values: dict[str, str] = {}
            for field in fields_of(template):
                if user < 0 and field in OF_THE_PERSON:
                    value = None
                elif field == "shared":
                    history = self.catalog.interactions.history(user)[:position]
                    value = " and ".join(self.facts.shared(item, history))
                else:
                    value = self._columns[field](item, row)
                if not value or not value.strip():
                    break
                values[field] = value.strip()
            else:
                return filled(template, values)
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
    def _text_column(self) -> Any:
        return self.catalog.column("text")

    def _review(self, row: int) -> str | None:
        texts = self.catalog.interactions.reviews
        return None if texts is None else texts[row]


def tasks_with_words(
    catalog: Catalog, names: Sequence[str], pairs: NextItemPairs
) -> tuple[Words, tuple[str, ...]]:
    """The words of those tasks that have at least one text among the pairs; names of the others.

    Raises VitrineError for a task that is unknown, and where none has words.
    """
    tasks = [load_task(name) for name in names]
    words = Words(catalog, tasks)
    found = [task for task in tasks if next(words.texts(task.name, pairs), None) is not None]
    if not found:
        raise VitrineError(
            f"catalog '{catalog.name}' has no words for {', '.join(names) or 'any task'}; give its "
            "items a title or text, or its interactions a review"
        )
    words.tasks = {task.name: task for task in found}
    return words, tuple(task.name for task in tasks if task not in found)
