"""Finds and removes one user in a single file: a table, a JSON file, an image, a page."""

# pyright: reportAttributeAccessIssue=false
# pyarrow creates the functions of pyarrow.compute at import; type checkers do not see them.

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.artifacts import MANIFEST
from catalog.atomic_write import fsync_file, replace_file
from generate.provenance import METADATA_FIELD, verify
from generate.pseudonyms import UserKey

USER_COLUMNS = ("user", "user_id")
"""Columns of our tables that name the user of a row."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TEXT_SUFFIXES = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".tsv", ".txt", ".yaml", ".yml")
"""Files that are searched for the user's id although they are no generated output."""


class UserNames:
    """The user's id and all their pseudonyms, to search files for."""

    def __init__(self, user: str, keys: Sequence[UserKey]) -> None:
        self.all = frozenset({user, *(key.pseudonym(user) for key in keys)})
        spellings = {
            form for name in self.all for form in (name, html.escape(name), json.dumps(name)[1:-1])
        }
        self._words = re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(spellings)))})(?![\w-])"
        )

    def occur_in(self, text: str) -> bool:
        """Whether one of the names occurs in a text as a word."""
        return self._words.search(text) is not None or (
            # Markdown escapes some characters of ids.
            "\\" in text and self._words.search(text.replace("\\", "")) is not None
        )


def mentions_user(file: Path, names: UserNames) -> bool:
    """Whether a file that is no generated output contains the user's id or a pseudonym."""
    if file.suffix == ".parquet":
        try:
            return belongs_to_user(file, names)
        except pa.ArrowException:
            return False  # no table
    if file.suffix not in TEXT_SUFFIXES:
        return False
    with file.open(encoding="utf8", errors="replace") as lines:
        return any(map(names.occur_in, lines))


def belongs_to_user(file: Path, names: UserNames) -> bool:
    """Whether a generated file has rows, entries or images of the user."""
    if file.suffix == ".parquet":
        column = _user_column(pq.read_schema(file))
        if column is None:
            return False
        values = pq.read_table(file, columns=[column]).column(column)
        return bool(pc.any(pc.is_in(values, pa.array(names.all))).as_py())
    if file.name == MANIFEST:
        return False
    if file.suffix == ".json":
        return JsonWithoutUser(json.loads(file.read_text(encoding="utf8")), names).num_removed > 0
    if file.suffix in IMAGE_SUFFIXES:
        users, _ = image_users(file)
        return bool(names.all.intersection(users)) or _has_unknown_users(file)
    return file.suffix in (".md", ".html") and names.occur_in(file.read_text(encoding="utf8"))


def image_users(image: Path) -> tuple[set[str], str | None]:
    """Pseudonyms of the users an image was generated for, and the fingerprint of the key behind them."""
    if METADATA_FIELD.encode() not in image.read_bytes():
        return set(), None  # an image of the catalog, not a generated one
    metadata = verify(image).metadata
    several = metadata.get("Users")
    users = {str(metadata.get("User") or ""), *(several if isinstance(several, list) else [])}
    key = metadata.get("UserKey")
    return {str(user) for user in users - {""}}, str(key) if key else None


def _has_unknown_users(image: Path) -> bool:
    """Whether a generated image has no users in its metadata: a contact sheet without its users, or an
    image with the metadata of an earlier version."""
    if METADATA_FIELD.encode() not in image.read_bytes():
        return False
    metadata = verify(image).metadata
    return "Users" not in metadata and (image.name == "contact-sheet.png" or "User" not in metadata)


def _user_column(schema: pa.Schema) -> str | None:
    return next((name for name in USER_COLUMNS if name in schema.names), None)


def remove_rows(file: Path, names: UserNames) -> int:
    """Rewrites a parquet file without the user's rows, one row group at a time; returns their number."""
    removed = 0
    partial = file.with_suffix(".partial")
    with pq.ParquetFile(file) as source, pq.ParquetWriter(partial, source.schema_arrow) as target:
        column = _user_column(source.schema_arrow)
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group)
            others = rows.filter(pc.invert(pc.is_in(rows.column(column), pa.array(names.all))))
            removed += len(rows) - len(others)
            target.write_table(others)
    replace_file(partial, file)
    return removed


def remove_json_entries(file: Path, names: UserNames) -> tuple[int, list[Path]]:
    """Rewrites a JSON file without the user's entries; returns their number and the images they name."""
    pruned = JsonWithoutUser(json.loads(file.read_text(encoding="utf8")), names)
    file.write_text(json.dumps(pruned.content, indent=1), encoding="utf8")
    fsync_file(file)
    images = {path for pattern in pruned.image_patterns for path in file.parent.glob(pattern)}
    return pruned.num_removed, sorted(images)


class JsonWithoutUser:
    """JSON content without list entries of the user, and without what was generated with the user swapped
    in."""

    def __init__(self, content: Any, names: UserNames) -> None:
        self.names = names
        self.num_removed = 0
        self.image_patterns: list[str] = []
        """Glob patterns of images beside the file that are removed too."""
        self.content = self._walk(content)

    def _walk(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._walk(entry) for entry in value if not self._is_removed(entry)]
        if not isinstance(value, dict):
            return value
        if value.get("swapped_user") in self.names.all:
            self.num_removed += 1
            value = value | {
                "swapped_user": "",
                "generated": list(map(self._without_swapped, value["generated"])),
            }
        if isinstance(examples := value.get("examples"), list) and any(
            isinstance(example, str) for example in examples
        ):
            self.num_removed += 1  # examples that do not name their users
            value = value | {"examples": []}
        return {name: self._walk(entry) for name, entry in value.items()}

    def _is_removed(self, entry: Any) -> bool:
        if not isinstance(entry, dict) or entry.get("user") not in self.names.all:
            return False
        self.num_removed += 1
        self.image_patterns += [f"{one['files']}-*.png" for one in entry.get("generated", [])]
        return True

    def _without_swapped(self, generated: dict[str, Any]) -> dict[str, Any]:
        self.image_patterns.append(f"{generated['files']}-swapped.png")
        return generated | {"texts": generated["texts"] | {"swapped": ""}}
