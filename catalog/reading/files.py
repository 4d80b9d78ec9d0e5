"""Finds the files of a table in a folder: one file, or parts in a folder or with numbers."""

import os
import re
from pathlib import Path

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading.recognize import KINDS, suffix_of

PART = re.compile(r"[-_.](?:part[-_.]?)?\d+(?:[-_]of[-_]\d+)?")
"""What stands between a table's name and its suffix in the names of numbered parts."""

DIGITS = re.compile(r"(\d+)")


def stem_of(path: Path) -> str | None:
    """A table's name in small letters without its suffixes, Items.CSV.gz → items; None for other files."""
    suffix = suffix_of(path)
    return path.name.lower().rpartition(suffix)[0] or None if suffix in KINDS else None


def table_files(folder: Path, stem: str, notes: Notes) -> list[Path]:
    """The only file `<stem>.<suffix>`, or its parts in order of their names; [] if there is none.

    Parts are `<stem>-0001.<suffix>` and the like, or the tables in a folder `<stem>`. Raises
    VitrineError for several files of one name.
    """
    whole, numbered, inside = [], [], []
    for path in _listed(folder, stem):
        name = stem_of(path)
        if path.is_dir():
            inside += (
                [one for one in _listed(path) if stem_of(one)] if path.name.lower() == stem else []
            )
        elif name == stem:
            whole.append(path)
        elif name and PART.fullmatch(name.removeprefix(stem)):
            numbered.append(path)
    order = list(KINDS)
    whole.sort(key=lambda path: (order.index(suffix_of(path)), path.name))
    if len(whole) > 1:
        names = " and ".join(path.name for path in whole)
        raise VitrineError(f"{folder} holds {names}; keep one of them.")
    found = [one for one in (whole, numbered, inside) if one]
    if len(found) > 1:
        named = found[0][0].name
        others = ", ".join(str(part.relative_to(folder)) for part in found[1][:3])
        notes.add(
            named,
            f"is read as the table {stem}, and not the files beside it that look like its parts",
            examples=[others],
            remedy="remove or rename one or the other",
        )
    return found[0] if found else []


def _listed(folder: Path, start: str = "") -> list[Path]:
    """What lies in a folder under a name with this start, hidden files aside; part-2 before part-10."""
    names = [
        name
        for name in os.listdir(folder)
        if name.lower().startswith(start) and name[0] not in "._"
    ]
    return [folder / name for name in sorted(names, key=_order)]


def _order(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in DIGITS.split(name)]
