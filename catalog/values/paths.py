"""Finds the files that a column of picture paths names, with one listing for each folder."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import ast
import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import VitrineError, did_you_mean
from catalog.images import SUFFIXES
from catalog.notes import EXAMPLES, Notes

ADDRESS = r"^(?:[a-zA-Z][a-zA-Z0-9+.-]+://|//[^/]+\.[^/]+/|data:image/)"
"""A web address, also one without scheme, or an embedded picture."""
FETCH = (
    "`vitrine catalog import … --fetch_images true` fetches them; roles: {image: null} ignores them"
)
"""How pictures that are web addresses become files."""
COMPARED = 2000
"""Names of a folder that are compared with a missing one."""


def find_pictures(
    paths: pa.ChunkedArray,
    ids: pa.ChunkedArray,
    folder: Path,
    where: str,
    notes: Notes,
    finder: "Finder | None" = None,
) -> pa.ChunkedArray:
    """Absolute paths of pictures, null where there is none, or only a web address.

    A path that differs from one file's alone in separators, %20, letter case, Unicode form or suffix
    is that file's. One that fits no file stays, so that the item counts as one whose picture is missing.
    `finder`: of the same folder, whose listings serve several columns or batches. Raises VitrineError
    for the first path outside the folder.
    """
    paths, addresses = split_addresses(paths, where, notes)
    if pc.any(addresses).as_py():
        named = paths.filter(addresses)
        notes.add(
            where,
            f"{len(named)} pictures are web addresses, so these items have no picture yet",
            "empty",
            count=len(named),
            examples=named[:EXAMPLES].to_pylist(),
            remedy=FETCH,
        )
        paths = pc.if_else(addresses, pa.scalar(None, paths.type), paths)
    finder = finder or Finder(os.path.realpath(folder))
    absolute: list[str | None] = []
    loose: list[tuple[str, str]] = []
    missing: list[tuple[str, str]] = []
    for row, path in enumerate(paths.to_pylist()):
        if path is None:
            absolute.append(None)
            continue
        found, exact = finder.find(path)
        if found is None:
            raise VitrineError(
                f"item {ids[row]} has the image {path}, which lies outside {folder}; "
                "a catalog's images must lie inside its folder."
            )
        absolute.append(found)
        if not exact:
            (loose if finder.exists(found) else missing).append((path, found))
    _add_notes(loose, missing, finder, where, notes)
    return pa.chunked_array([pa.array(absolute, pa.large_string())])


def split_addresses(
    paths: pa.ChunkedArray, where: str, notes: Notes
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The paths, of several in one value the first one; and which of them are web addresses."""
    paths = _first_of_lists(paths, where, notes)
    return paths, pc.fill_null(pc.match_substring_regex(paths, ADDRESS), False)


def _add_notes(
    loose: list[tuple[str, str]],
    missing: list[tuple[str, str]],
    finder: "Finder",
    where: str,
    notes: Notes,
) -> None:
    base = finder.base
    if loose:
        examples = [f"{path} → {os.path.relpath(found, base)}" for path, found in loose[:EXAMPLES]]
        what = f"{len(loose)} pictures are found under a path that is written in another way"
        notes.add(where, what, count=len(loose), examples=examples)
    if missing:
        hints = [
            path + did_you_mean(os.path.basename(found), finder.folder(found).pictures[:COMPARED])
            for path, found in missing[:EXAMPLES]
        ]
        what = f"{len(missing)} pictures are missing, so these items have none"
        remedy = "add the files or correct the paths"
        notes.add(where, what, "empty", count=len(missing), examples=hints, remedy=remedy)


def _first_of_lists(paths: pa.ChunkedArray, where: str, notes: Notes) -> pa.ChunkedArray:
    """Of several paths in JSON or Python form the first one."""
    listed = pc.fill_null(pc.match_substring_regex(paths, r"^\[.*\]$"), False)
    if not pc.any(listed).as_py():
        return paths
    given = paths.filter(listed).to_pylist()
    firsts = [_first_listed(text) for text in given]
    what = f"{len(given)} values hold lists of pictures, of which the first is read"
    notes.add(where, what, count=len(given), examples=given)
    mask = listed.combine_chunks()
    return pa.chunked_array(
        [pc.replace_with_mask(paths.combine_chunks(), mask, pa.array(firsts, pa.large_string()))]
    )


def _first_listed(text: str) -> str | None:
    """The first path of a JSON or Python list; the text itself if it is neither."""
    values: Any = text
    for parse in (ast.literal_eval, json.loads):
        try:
            values = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    while isinstance(values, list | tuple | dict):
        values = next(iter(values.values() if isinstance(values, dict) else values), None)
    if not isinstance(values, str):
        return None
    return values.strip().encode("utf8", "replace").decode() or None  # without half surrogates


def _loosened(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


@dataclass
class _Folder:
    """The names in one folder, listed once."""

    path: str
    is_inside: bool
    """Whether the folder, with links followed, lies in the catalog's."""
    links: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    @cached_property
    def names(self) -> list[str]:
        return sorted(self.listed)

    @cached_property
    def pictures(self) -> list[str]:
        return [name for name in self.names if os.path.splitext(name)[1].lower() in SUFFIXES]

    @cached_property
    def _loose(self) -> dict[str, list[str]]:
        return _grouped(self.names, _loosened)

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        return _grouped(self.pictures, lambda name: _loosened(_stem(name)))

    def match(self, name: str, last: bool) -> str | None:
        """The only name that differs from `name` in form alone; the last part of a path also in suffix."""
        if name in self.listed:
            return name
        groups = [self._loose.get(_loosened(name), [])]
        if last:
            groups.append(self._stems.get(_loosened(_stem(name)), []))
        filled = next((group for group in groups if group), [])
        return filled[0] if len(filled) == 1 else None


def _grouped(names: list[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


class Finder:
    """Finds files below a folder by paths that may be written in another way."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._folders: dict[str, _Folder] = {}

    def find(self, path: str) -> tuple[str | None, bool]:
        """The absolute path of a picture, or None where it lies outside; and whether it is written so."""
        full = os.path.normpath(os.path.join(self.base, path))
        if not self._stays_inside(full):
            return None, False
        if self.exists(full):
            return full, True
        for written in self._other_forms(path):
            other = os.path.normpath(os.path.join(self.base, written))
            if self._stays_inside(other) and (match := self._match(other)) is not None:
                return (match, False) if self._stays_inside(match) else (None, False)
        return full, False

    def exists(self, full: str) -> bool:
        return os.path.basename(full) in self.folder(full).listed

    def folder(self, full: str) -> _Folder:
        """The folder in which a file lies."""
        parent = os.path.dirname(full)
        if parent not in self._folders:  # many images share few folders
            self._folders[parent] = self._list(parent)
        return self._folders[parent]

    def _list(self, parent: str) -> _Folder:
        try:
            real = os.path.realpath(parent)
        except ValueError:  # a name that no file can have
            return _Folder(parent, _is_under(parent, self.base))
        listing = _Folder(parent, _is_under(real, self.base))
        if listing.is_inside:
            try:
                with os.scandir(parent) as entries:
                    for entry in entries:
                        listing.listed.add(entry.name)
                        if entry.is_symlink():
                            listing.links.add(entry.name)
            except (OSError, ValueError):
                pass
        return listing

    def _stays_inside(self, full: str) -> bool:
        folder = self.folder(full)
        if not folder.is_inside or not _is_under(full, self.base):
            return False
        return os.path.basename(full) not in folder.links or _is_under(
            os.path.realpath(full), self.base
        )

    @staticmethod
    def _other_forms(path: str) -> list[str]:
        """The path in other separators, without %20, and the first of several joined paths."""
        forms = [path]
        for mark in "|,;":
            if mark in path and (first := path.split(mark)[0].strip()):
                forms.append(first)
        forms += [form.replace("\\", "/") for form in forms if "\\" in form]
        forms += [unquote(form) for form in forms if "%" in form]
        return forms

    def _match(self, full: str) -> str | None:
        """The file that a path inside the base names loosely, part by part."""
        parts = os.path.relpath(full, self.base).split(os.sep)
        place = self.base
        for number, part in enumerate(parts):
            folder = self.folder(os.path.join(place, part))
            name = folder.match(part, last=number == len(parts) - 1) if folder.is_inside else None
            if name is None:
                return None
            place = os.path.join(place, name)
        return place


def _is_under(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip(os.sep) + os.sep)
