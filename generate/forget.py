"""Removes one user from what was made: texts, pictures, pages and scores, work under way, caches.

Nothing else keeps a user by name: states are computed from histories when they are needed, and no
adapter is trained for one user. What they did stays where the shop keeps it until the shop removes it,
and in the weights of what was trained on it until that is trained again; both are reported.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import html
import json
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.artifacts import MANIFEST, edit_artifact, read_manifest
from catalog.atomic_write import fsync_file, remove_leftovers, replace_file
from catalog.cache import cache_folder
from catalog.errors import VitrineError
from generate.batch_job import USER_KEY
from generate.provenance import METADATA_FIELD, verify
from generate.pseudonyms import KEY_VARIABLE, UserKey, known_keys

MADE = ("texts", "images", "showcase", "text-scores", "image-scores")
"""Kinds of artifacts that hold what was made for single users."""
LEARNED = ("recommender", "text-generator", "image-generator")
"""Kinds that were trained on what users did."""
NAMING = ("user", "user_id")
"""Columns of our tables that say whose a row is."""
TABLE, REPORT = "targets.parquet", "report.html"
"""What stands beside artifacts and names users: a comparison's targets, a page."""
PICTURES = (".png", ".jpg", ".jpeg")
READABLE = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".tsv", ".txt", ".yaml", ".yml")
"""Files that are searched for the user's id where nothing of ours wrote them."""


@dataclass
class Forgotten:
    rows: dict[Path, int] = field(default_factory=dict)
    """File → rows, or entries of a page, removed from it."""
    files: list[Path] = field(default_factory=list)
    """Files removed whole; the command that made a page makes it again, without the user."""
    caches: list[Path] = field(default_factory=list)
    """Converted catalogs removed, which are made anew from what the shop keeps then."""
    learned: list[Path] = field(default_factory=list)
    """Artifacts below the folder whose training may have seen the user."""
    left: list[Path] = field(default_factory=list)
    """Files that still hold the user's id, which were not made for them: the shop's own, lists, notes."""


def forget(user: str, folder: Path, key_files: Sequence[str | Path] = ()) -> Forgotten:
    """Removes `user` (an id as the shop has it) from what lies at or below `folder`, and from the cache.

    Pseudonyms are looked for under the key in use, those retired from it and those in `key_files`. Raises
    VitrineError, and removes nothing, where something was made under a key that is none of these.
    """
    if not folder.is_dir():
        raise VitrineError(f"{folder} is no folder; give the one below which artifacts are.")
    keys = known_keys(key_files)
    _sweep(folder)
    artifacts = dict(_artifacts(folder))
    loose = [
        file for file in _files(folder) if not any(place in artifacts for place in file.parents)
    ]
    _check_keys(folder, artifacts, loose, keys, has_key_files=bool(key_files))
    user_names, done = _Names(user, keys), Forgotten()
    for place, manifest in artifacts.items():
        if manifest["kind"] in LEARNED:
            done.learned.append(place)
        elif manifest["kind"] in MADE and any(_names(file, user_names) for file in _files(place)):
            with edit_artifact(place) as copy:
                for file in _files(copy):
                    _remove(file, user_names, done, place / file.relative_to(copy))
    for file in loose:
        if _is_ours(file) and _names(file, user_names):
            _remove(file, user_names, done, file)
        elif _mentions(file, user_names):
            done.left.append(file)
    for cache in _catalogs_with(user):
        shutil.rmtree(cache)
        done.caches.append(cache)
    return done


class _Names:
    """The user's id and their pseudonyms."""

    def __init__(self, user: str, keys: Sequence[UserKey]) -> None:
        self.all = frozenset({user, *(key.pseudonym(user) for key in keys)})
        spelt = {
            form for name in self.all for form in (name, html.escape(name), json.dumps(name)[1:-1])
        }
        self._words = re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(spelt)))})(?![\w-])"
        )

    def in_text(self, text: str) -> bool:
        """Whether one of them stands in it as a word."""
        return self._words.search(text) is not None or (
            # A page of samples once had ids in it, with Markdown's signs marked.
            "\\" in text and self._words.search(text.replace("\\", "")) is not None
        )


def _mentions(file: Path, names: _Names) -> bool:
    """Whether a file that nothing of ours wrote for a user holds their id."""
    if file.suffix == ".parquet":
        try:
            return _names(file, names)
        except pa.ArrowException:
            return False  # no table
    if file.suffix not in READABLE:
        return False
    with file.open(encoding="utf8", errors="replace") as lines:
        return any(map(names.in_text, lines))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _sweep(folder: Path) -> None:
    """Removes what writers that were killed have left beside artifacts and in work under way."""
    for left in folder.rglob(".*-*"):
        name, found, _ = left.name[1:].rpartition(".partial-")
        if not found:
            name, found, _ = left.name[1:].rpartition(".replaced-")
        if found and left.exists():
            remove_leftovers(left.with_name(name))
    for left in folder.rglob("*.work/part-*.partial"):
        left.unlink()


def _artifacts(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for place in sorted(path.parent for path in folder.rglob(MANIFEST)):
        try:
            yield place, read_manifest(place)
        except VitrineError:
            continue  # another tool's manifest, or one that no run would read either


def _is_ours(file: Path) -> bool:
    """Whether a file outside artifacts was made by us, and for users."""
    if file.suffix == ".parquet":
        return file.name == TABLE or (
            file.stem.startswith("part-") and file.parent.suffix == ".work"
        )
    return file.name == REPORT or (file.suffix in PICTURES and bool(_users_of(file)[0]))


def _check_keys(
    folder: Path,
    artifacts: dict[Path, dict[str, Any]],
    loose: Sequence[Path],
    keys: Collection[UserKey],
    has_key_files: bool,
) -> None:
    known = {key.fingerprint for key in keys}
    needed: dict[Path, str | None] = {}
    for place, manifest in artifacts.items():
        if manifest["kind"] in MADE:
            # Kinds beside these two held plain ids before manifests named a key.
            unnamed = None if manifest["kind"] in ("texts", "images") else ""
            needed[place] = manifest.get("user_key", unnamed)
    for file in loose:
        if file.suffix == ".parquet" and _is_ours(file) and file.name != TABLE:
            held = pq.read_schema(file).metadata or {}
            needed[file] = held[USER_KEY.encode()].decode() if USER_KEY.encode() in held else None
        elif file.suffix in PICTURES:
            users, key = _users_of(file)
            if users:
                needed[file] = key
    for place, key in needed.items():
        if key is None and not has_key_files:
            raise VitrineError(
                f"{place} does not say which key names users in it; give the signing key that was in use "
                f"when it was made with --key FILE, or remove {place}."
            )
        if key and key not in known:
            raise VitrineError(
                f"{place} names users by the key {key}, which is not among those known; give the file that "
                f"{KEY_VARIABLE} named then with --key FILE, or, if that key is lost, remove {place}."
            )


def _names(file: Path, names: _Names) -> bool:
    """Whether anything in a file of ours is the user's."""
    if file.suffix == ".parquet":
        column = _naming_column(pq.read_schema(file))
        if column is None:
            return False
        found = pq.read_table(file, columns=[column]).column(column)
        return bool(pc.any(pc.is_in(found, pa.array(names.all))).as_py())
    if file.name == MANIFEST:
        return False
    if file.suffix == ".json":
        return _Pruned(json.loads(file.read_text(encoding="utf8")), names).count > 0
    if file.suffix in PICTURES:
        users, _ = _users_of(file)
        return bool(names.all.intersection(users)) or _says_nothing_of_users(file)
    return file.suffix in (".md", ".html") and names.in_text(file.read_text(encoding="utf8"))


def _remove(file: Path, names: _Names, done: Forgotten, shown: Path) -> None:
    """Takes the user out of a file, or removes it; `shown` is its path in the report."""
    if not file.exists() or not _names(file, names):
        return
    if file.suffix == ".parquet":
        done.rows[shown] = _take_out(file, names)
    elif file.suffix == ".json":
        pruned = _Pruned(json.loads(file.read_text(encoding="utf8")), names)
        file.write_text(json.dumps(pruned.content, indent=1), encoding="utf8")
        fsync_file(file)
        done.rows[shown] = pruned.count
        for picture in {path for pattern in pruned.pictures for path in file.parent.glob(pattern)}:
            picture.unlink()
            done.files.append(shown.with_name(picture.name))
    else:
        file.unlink()
        done.files.append(shown)


class _Pruned:
    """What is left of a JSON file: entries of a list whose `user` it is go, and so does what a `partner`
    was shown instead."""

    def __init__(self, content: Any, names: _Names) -> None:
        self.names = names
        self.count = 0
        self.pictures: list[str] = []
        """Patterns of files beside it that go too."""
        self.content = self._walk(content)

    def _walk(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._walk(one) for one in value if not self._goes(one)]
        if not isinstance(value, dict):
            return value
        if value.get("swapped_user") in self.names.all:
            self.count += 1
            value = value | {
                "swapped_user": "",
                "generated": list(map(self._without_swapped, value["generated"])),
            }
        if isinstance(examples := value.get("examples"), list) and any(
            isinstance(one, str) for one in examples
        ):
            self.count += 1  # an earlier version did not say for whom they were written
            value = value | {"examples": []}
        return {name: self._walk(one) for name, one in value.items()}

    def _goes(self, entry: Any) -> bool:
        if not isinstance(entry, dict) or entry.get("user") not in self.names.all:
            return False
        self.count += 1
        self.pictures += [f"{one['files']}-*.png" for one in entry.get("generated", [])]
        return True

    def _without_swapped(self, generated: dict[str, Any]) -> dict[str, Any]:
        self.pictures.append(f"{generated['files']}-swapped.png")
        return generated | {"texts": generated["texts"] | {"swapped": ""}}


def _users_of(picture: Path) -> tuple[set[str], str | None]:
    """Pseudonyms of those a picture is for, and the fingerprint of the key behind them."""
    if METADATA_FIELD.encode() not in picture.read_bytes():
        return set(), None  # a picture of the catalog's, not one of ours
    about = verify(picture).metadata
    people = about.get("Users")
    users = {str(about.get("User") or ""), *(people if isinstance(people, list) else [])} - {""}
    key = about.get("UserKey")
    return {str(user) for user in users}, str(key) if key else None


def _says_nothing_of_users(picture: Path) -> bool:
    """A contact sheet of an earlier version: nobody can say who is on it."""
    return picture.name == "contact-sheet.png" and "Users" not in verify(picture).metadata


def _naming_column(schema: pa.Schema) -> str | None:
    return next((name for name in NAMING if name in schema.names), None)


def _take_out(file: Path, names: _Names) -> int:
    """Rewrites a file without the user's rows, a group of rows at a time; how many they were."""
    removed = 0
    partial = file.with_suffix(".partial")
    with pq.ParquetFile(file) as read, pq.ParquetWriter(partial, read.schema_arrow) as written:
        column = _naming_column(read.schema_arrow)
        for group in range(read.num_row_groups):
            rows = read.read_row_group(group)
            kept = rows.filter(pc.invert(pc.is_in(rows.column(column), pa.array(names.all))))
            removed += len(rows) - len(kept)
            written.write_table(kept)
    replace_file(partial, file)
    return removed


def _catalogs_with(user: str) -> Iterator[Path]:
    for file in sorted((cache_folder() / "catalogs").glob("*/user_ids.npy")):
        known = np.load(file, mmap_mode="r", allow_pickle=False)
        if any(
            (known[start : start + 65_536] == user).any() for start in range(0, len(known), 65_536)
        ):
            yield file.parent
