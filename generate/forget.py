"""Erases one user (right to erasure) from generated texts, images, pages and scores, and from caches.

Nothing else stores a user by name: states are computed from histories when they are needed, and no adapter
is trained for one user. Their interactions stay in the shop's own files until the shop removes them, and
in the weights of models trained on them until those are trained again; both are reported.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from catalog.artifacts import MANIFEST, edit_artifact, read_manifest
from catalog.atomic_write import remove_leftovers
from catalog.cache import cache_folder
from catalog.errors import OlderFormatError, VitrineError
from generate.batch_job import USER_KEY
from generate.pseudonyms import KEY_VARIABLE, UserKey, known_keys
from generate.user_files import (
    IMAGE_SUFFIXES,
    UserNames,
    belongs_to_user,
    image_users,
    mentions_user,
    remove_json_entries,
    remove_rows,
)

GENERATED_KINDS = ("texts", "images", "showcase", "text-scores", "image-scores")
"""Kinds of artifacts with output that was generated for single users."""
TRAINED_KINDS = ("recommender", "text-generator", "image-generator")
"""Kinds of artifacts that were trained on users' interactions."""
TARGETS_TABLE, REPORT = "targets.parquet", "report.html"
"""Generated files beside artifacts that name users: a comparison's targets, a page."""


@dataclass
class ErasureReport:
    rows: dict[Path, int] = field(default_factory=dict)
    """File → number of rows, or entries of a JSON file, removed from it."""
    files: list[Path] = field(default_factory=list)
    """Files removed whole; the command that wrote a page writes it again, without the user."""
    caches: list[Path] = field(default_factory=list)
    """Converted catalogs removed; they are converted again from what the shop stores by then."""
    trained: list[Path] = field(default_factory=list)
    """Artifacts below the folder whose training data may include the user; not changed."""
    mentions: list[Path] = field(default_factory=list)
    """Files that contain the user's id but are no generated output, such as the shop's own; not removed."""


def forget(user: str, folder: Path, key_files: Sequence[str | Path] = ()) -> ErasureReport:
    """Erases `user` (an id as the shop has it) from everything at or below `folder`, and from the cache.

    Pseudonyms are computed with the key in use, those retired from it and those in `key_files`. Raises
    VitrineError, and removes nothing, where something was generated with a key that is none of these.
    """
    if not folder.is_dir():
        raise VitrineError(f"{folder} is no folder; give the one below which artifacts are.")
    keys = known_keys(key_files)
    _remove_partial_files(folder)
    artifacts = dict(_artifacts(folder))
    other_files = [
        file for file in _files(folder) if not any(parent in artifacts for parent in file.parents)
    ]
    _check_keys(artifacts, other_files, keys, has_key_files=bool(key_files))
    names, report = UserNames(user, keys), ErasureReport()
    for path, manifest in artifacts.items():
        if manifest["kind"] in TRAINED_KINDS:
            report.trained.append(path)
        elif manifest["kind"] in GENERATED_KINDS and any(
            belongs_to_user(file, names) for file in _files(path)
        ):
            with edit_artifact(path) as copy:
                for file in _files(copy):
                    _remove(file, names, report, path / file.relative_to(copy))
    for file in other_files:
        if _is_generated(file) and belongs_to_user(file, names):
            _remove(file, names, report, file)
        elif mentions_user(file, names):
            report.mentions.append(file)
    for cache in _catalogs_with(user):
        shutil.rmtree(cache)
        report.caches.append(cache)
    return report


def _remove(file: Path, names: UserNames, report: ErasureReport, shown: Path) -> None:
    """Removes the user from a file, or the whole file; `shown` is its path in the report."""
    if not file.exists() or not belongs_to_user(file, names):
        return
    if file.suffix == ".parquet":
        report.rows[shown] = remove_rows(file, names)
    elif file.suffix == ".json":
        report.rows[shown], images = remove_json_entries(file, names)
        for image in images:
            image.unlink()
            report.files.append(shown.with_name(image.name))
    else:
        file.unlink()
        report.files.append(shown)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _remove_partial_files(folder: Path) -> None:
    """Removes partial files of killed processes, beside artifacts and in work folders."""
    for partial in folder.rglob(".*-*"):
        name, found, _ = partial.name[1:].rpartition(".partial-")
        if not found:
            name, found, _ = partial.name[1:].rpartition(".replaced-")
        if found and partial.exists():
            remove_leftovers(partial.with_name(name))
    for partial in folder.rglob("*.work/part-*.partial"):
        partial.unlink()


def _artifacts(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of artifacts, and their manifests. Raises VitrineError for one of an older format: what
    was generated in it cannot be searched."""
    for path in sorted(manifest.parent for manifest in folder.rglob(MANIFEST)):
        try:
            yield path, read_manifest(path)
        except OlderFormatError as error:
            raise VitrineError(
                f"{path} is of an older format, in which users cannot be found; nothing was removed. Remove "
                "that folder, or erase the user with the Vitrine that wrote it."
            ) from error
        except VitrineError:
            continue  # another tool's manifest, or one that no run would read either


def _is_generated(file: Path) -> bool:
    """Whether a file outside artifacts was generated for users."""
    if file.suffix == ".parquet":
        return file.name == TARGETS_TABLE or (
            file.stem.startswith("part-") and file.parent.suffix == ".work"
        )
    return file.name == REPORT or (file.suffix in IMAGE_SUFFIXES and bool(image_users(file)[0]))


def _check_keys(
    artifacts: dict[Path, dict[str, Any]],
    other_files: Sequence[Path],
    keys: Collection[UserKey],
    has_key_files: bool,
) -> None:
    """Raises VitrineError for pseudonyms whose key is unknown."""
    known = {key.fingerprint for key in keys}
    for path, key in _pseudonym_keys(artifacts, other_files).items():
        if key is None and not has_key_files:
            raise VitrineError(
                f"{path} does not say which key names users in it; give the signing key that was in use "
                f"when it was made with --key FILE, or remove {path}."
            )
        if key and key not in known:
            raise VitrineError(
                f"{path} names users by the key {key}, which is not among those known; give the file that "
                f"{KEY_VARIABLE} named then with --key FILE, or, if that key is lost, remove {path}."
            )


def _pseudonym_keys(
    artifacts: dict[Path, dict[str, Any]], other_files: Sequence[Path]
) -> dict[Path, str | None]:
    """Fingerprint of the key behind the pseudonyms of each generated file; None where it is not stored."""
    needed: dict[Path, str | None] = {}
    for path, manifest in artifacts.items():
        if manifest["kind"] in GENERATED_KINDS:
            # Kinds beside these two held plain ids before manifests named a key.
            unnamed = None if manifest["kind"] in ("texts", "images") else ""
            needed[path] = manifest.get("user_key", unnamed)
    for file in other_files:
        if file.suffix == ".parquet" and _is_generated(file) and file.name != TARGETS_TABLE:
            metadata = pq.read_schema(file).metadata or {}
            key = metadata.get(USER_KEY.encode())
            needed[file] = None if key is None else key.decode()
        elif file.suffix in IMAGE_SUFFIXES:
            users, key = image_users(file)
            if users:
                needed[file] = key
    return needed


def _catalogs_with(user: str) -> Iterator[Path]:
    """Cached catalogs that contain the user."""
    for file in sorted((cache_folder() / "catalogs").glob("*/user_ids.npy")):
        known = np.load(file, mmap_mode="r", allow_pickle=False)
        if any(
            (known[start : start + 65_536] == user).any() for start in range(0, len(known), 65_536)
        ):
            yield file.parent
