"""Adds up notes of the same kind that batches of one table give."""

import re
from dataclasses import replace

from catalog.notes import EXAMPLES, Note, Notes

NUMBER = re.compile(r"\d+")


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
