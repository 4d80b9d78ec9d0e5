"""Notes on how a catalog was read: what was decided, what was dropped or left empty, and why."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

EXAMPLES = 3
"""Examples that a note keeps."""
NUMBER = re.compile(r"\d+")
NoteKind = Literal["decided", "empty", "dropped"]
"""decided: a guess that could be wrong; empty: values that became null; dropped: rows that were left out."""


@dataclass(frozen=True)
class Note:
    """One decision about a file or a column."""

    where: str
    """File, table or column: "items.csv", "items: price"."""
    what: str
    """What was decided or found, and by what it was seen."""
    kind: NoteKind = "decided"
    count: int = 0
    """Number of affected values or rows; 0 where all are."""
    examples: tuple[str, ...] = ()
    """The first few affected values, each once."""
    remedy: str = ""
    """How to overrule or mend it."""

    def __str__(self) -> str:
        named = f" ({', '.join(map(repr, self.examples))})" if self.examples else ""
        return f"{self.where}: {self.what}{named}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass
class Notes:
    """Collects notes while a catalog is read, in order, each once."""

    listed: list[Note] = field(default_factory=list)

    def add(
        self,
        where: str,
        what: str,
        kind: NoteKind = "decided",
        *,
        count: int = 0,
        examples: Iterable[object] = (),
        remedy: str = "",
    ) -> None:
        few: dict[str, None] = {}
        for example in examples:
            few[str(example)[:80]] = None
            if len(few) == EXAMPLES:
                break
        self.keep(Note(where, what, kind, count, tuple(few), remedy))

    def keep(self, note: Note) -> None:
        """Adds a note, unless it is listed."""
        if note not in self.listed:
            self.listed.append(note)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(note) for note in self.listed]


class CountedNotes(Notes):
    """Notes of batches: those that differ in their number alone become one."""

    def keep(self, note: Note) -> None:
        """Adds a note also where another batch has the same: their numbers add up."""
        self.listed.append(note)

    def add_to(self, notes: Notes) -> None:
        """Adds each note once, with the sum of its numbers and its first examples."""
        united: dict[tuple[str, str, str], Note] = {}
        for note in self.listed:
            what = NUMBER.sub("#", note.what, count=1) if note.count else note.what
            key = (note.where, what, note.kind)
            before = united.get(key)
            united[key] = note if before is None else _united(before, note)
        for note in united.values():
            notes.keep(note)


def _united(one: Note, other: Note) -> Note:
    examples = tuple(dict.fromkeys((*one.examples, *other.examples)))[:EXAMPLES]
    if not one.count:
        return replace(one, examples=examples)
    numbers = [NUMBER.search(note.what) for note in (one, other)]
    total = sum(int(number[0]) for number in numbers if number)
    what = NUMBER.sub(str(total), one.what, count=1)
    return replace(one, what=what, count=one.count + other.count, examples=examples)


def notes_from_json(listed: Iterable[dict[str, Any]]) -> list[Note]:
    return [Note(**{**note, "examples": tuple(note["examples"])}) for note in listed]
