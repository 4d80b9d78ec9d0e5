"""Artifacts: the folders that stages write, with a manifest of checksums, parents and settings.

An artifact is written atomically, and opened only if its checksums and its parents still match. Knows
nothing about what the files mean.
"""

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from catalog.atomic_write import fsync_tree, list_files, replace_folder, stage_folder
from catalog.checksums import dumps_with_checksum, file_sha256, loads_with_checksum
from catalog.errors import OlderFormatError, VitrineError

MANIFEST = "manifest.json"
FORMAT_VERSION = 3
"""Increased when the layout of an artifact's files or settings changes; only this version is opened."""
REQUEST_VERSION = 1
"""Increased when a stage computes another result from the same settings."""
LIBRARIES = [
    "accelerate",
    "datasets",
    "deepspeed",
    "diffusers",
    "numpy",
    "peft",
    "pyarrow",
    "pytorch-lightning",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "vitrine",
]

CARD = "README.md"
"""The model card. It has no checksum, so that it may be edited."""
HUB = "hub:"

StrPath = str | os.PathLike[str]
Card = Callable[[str, Mapping[str, Any]], str]
"""(name of the folder, manifest) → Markdown."""


@dataclass(frozen=True)
class Staging:
    """An artifact's folder while it is written; usable as a path, also `staging / "name"`."""

    path: Path
    metrics: dict[str, Any]
    """Metrics for the manifest; may be extended until the `with` block ends."""

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Artifact:
    """A verified artifact folder and its manifest."""

    path: Path
    manifest: dict[str, Any]
    """kind, hash, parents, catalog, split, config, metrics, libraries, checksums and more."""

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @cached_property
    def hash(self) -> str:
        """sha256 of the content: equal files give an equal hash, whenever and wherever written."""
        return _content_hash(self.manifest["checksums"])

    def parent(self, name: str) -> Path:
        """Path of the parent artifact `name`; VitrineError if it is unknown or missing."""
        parents = self.manifest["parents"]
        if name not in parents:
            known = ", ".join(parents) or "none"
            raise VitrineError(f"{self.path} was not made from any {name}; its parents: {known}.")
        path = _parent_path(self.path, parents[name])
        if not (path / MANIFEST).is_file():
            raise VitrineError(
                f"{self.path} was made from the {name} {path}, which is gone; put it back "
                "there, or rerun the stage that made it."
            )
        return path


@contextmanager
def write_artifact(
    path: StrPath,
    kind: str,
    *,
    config: Mapping[str, Any] | None = None,
    parents: Mapping[str, StrPath] | None = None,
    catalog: str = "",
    split: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    request: str = "",
    user_key: str = "",
    card: Card | None = None,
) -> Iterator[Staging]:
    """Yields an empty folder; on leaving, it becomes the artifact at `path`, all of it or nothing.

    An existing artifact stays until the new one is complete. `parents` are folders of
    artifacts, by role; `catalog` is a fingerprint; `request` is the `request_hash` of the rest
    unless given; `user_key` is the fingerprint of the key whose pseudonyms name users in it; `card`
    writes README.md.
    Raises VitrineError if a parent is no artifact, and if `path` holds files that are no artifact; the
    new artifact is then stored beside it.
    """
    final = Path(path).resolve()
    parent_paths = {
        name: local_folder(parent).resolve() for name, parent in (parents or {}).items()
    }
    known_parents = {
        name: {"path": os.path.relpath(parent, final), "hash": artifact_hash(parent)}
        for name, parent in parent_paths.items()
    }
    request = request or request_hash(kind, config, parents, catalog)
    with stage_folder(final) as folder:
        staging = Staging(folder, dict(metrics or {}))
        yield staging
        checksums = _checksums(folder)
        manifest = {
            "kind": kind,
            "format_version": FORMAT_VERSION,
            "hash": _content_hash(checksums),
            "request_hash": request,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parents": known_parents,
            "catalog": catalog,
            "split": _to_json(split),
            "config": _to_json(config or {}),
            "metrics": _to_json(staging.metrics),
            "libraries": _libraries(),
            "checksums": checksums,
        } | ({"user_key": user_key} if user_key else {})
        _write_manifest(folder, manifest)
        if card is not None:
            (folder / CARD).write_text(card(final.name, manifest), encoding="utf8")
        fsync_tree(folder)
    replace_folder(folder, final, MANIFEST)


@contextmanager
def edit_artifact(path: StrPath) -> Iterator[Path]:
    """Yields a copy of an artifact's folder to edit; on leaving, it replaces the artifact atomically.

    Checksums and hash are computed again; parents and request stay. Raises VitrineError where `path`
    is no complete artifact.
    """
    artifact = open_artifact(path)
    with stage_folder(artifact.path) as folder:
        shutil.copytree(artifact.path, folder, dirs_exist_ok=True)
        yield folder
        (folder / MANIFEST).unlink()
        checksums = _checksums(folder)
        changed = {"hash": _content_hash(checksums), "checksums": checksums}
        _write_manifest(folder, artifact.manifest | changed)
        fsync_tree(folder)
    replace_folder(folder, artifact.path, MANIFEST)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(dumps_with_checksum(manifest, indent=2) + "\n", encoding="utf8")


def open_artifact(path: "StrPath | Artifact", kind: str | None = None) -> Artifact:
    """The artifact at `path`, with all files verified; parents that still exist must be unchanged.

    An artifact that is open already is returned as it is; its files are not read again. `path` may be
    `hub:user/name`, or `hub:user/name@revision`, on the Hugging Face Hub. Raises VitrineError for a missing,
    damaged or changed artifact, one of another kind, and one whose parent has been replaced.
    """
    is_open = isinstance(path, Artifact)
    folder = path.path if is_open else local_folder(path)
    artifact = path if is_open else Artifact(folder.resolve(), read_manifest(folder))
    if kind is not None and artifact.kind != kind:
        raise VitrineError(
            f"{folder} is an artifact of kind {artifact.kind}; give one of kind {kind}."
        )
    if is_open:
        return artifact
    for name, checksum in artifact.manifest["checksums"].items():
        file = folder / name
        if not file.is_file():
            raise VitrineError(f"{file} is missing; rerun the stage that made {folder}.")
        found = file_sha256(file)
        if found != checksum:
            raise VitrineError(
                f"{file} differs from its checksum {checksum[:12]}…: the file was changed or "
                "damaged; rerun the stage that made it."
            )
    for name, parent in artifact.manifest["parents"].items():
        _verify_parent(artifact.path, name, parent)
    return artifact


def is_complete(path: StrPath, request: str) -> bool:
    """Whether `path` already holds the complete artifact of this request (see `request_hash`).

    Reads the manifest and looks for each file; `open_artifact` verifies what the files hold.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = read_manifest(folder)
    except VitrineError:
        return False
    return manifest["request_hash"] == request and all(
        (folder / name).is_file() for name in manifest["checksums"]
    )


def request_hash(
    kind: str,
    config: Mapping[str, Any] | None = None,
    parents: Mapping[str, StrPath] | None = None,
    catalog: str = "",
) -> str:
    """sha256 of a request: the artifact's kind, settings, parents' content and catalog."""
    parent_hashes = {name: artifact_hash(parent) for name, parent in (parents or {}).items()}
    request = [kind, REQUEST_VERSION, _to_json(config or {}), parent_hashes, catalog]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def artifact_hash(path: StrPath) -> str:
    """The content hash in the artifact's manifest; its files are not read."""
    return read_manifest(local_folder(path))["hash"]


def local_folder(path: StrPath) -> Path:
    """The local folder of an artifact; one on the Hub is downloaded, or found in the Hub's cache."""
    name = os.fspath(path)
    if not name.startswith(HUB):
        return Path(path)
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None))
    except Exception as error:  # the hub's client raises many kinds: offline, private, misspelt
        reason = " ".join(str(error).split())
        raise VitrineError(f"{name} cannot be fetched from the Hub: {reason}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, its own hash verified; VitrineError if it is missing or damaged."""
    file = folder / MANIFEST
    if not file.is_file():
        hint = "it is not there" if not folder.exists() else f"it holds no {MANIFEST}"
        raise VitrineError(f"{folder} is not an artifact: {hint}; give the folder a stage wrote.")
    try:
        text = file.read_text(encoding="utf8")
        manifest = json.loads(text)
        _check_version(folder, manifest["format_version"])
        manifest = loads_with_checksum(text.removesuffix("\n"), indent=2)
        intact = manifest["hash"] == _content_hash(manifest["checksums"])
        intact = intact and {"kind", "request_hash", "parents"} <= manifest.keys()
    except (ValueError, KeyError, TypeError, AttributeError):
        manifest, intact = {}, False
    if not intact:
        raise VitrineError(f"{file} was changed or damaged; rerun the stage that made it.")
    return manifest


def _check_version(folder: Path, found: int) -> None:
    """Raises VitrineError for an artifact of another format version; OlderFormatError for an older one."""
    if found > FORMAT_VERSION:
        raise VitrineError(
            f"{folder} has format version {found}, written by a newer Vitrine; this one reads version "
            f"{FORMAT_VERSION}. Upgrade it."
        )
    if found < FORMAT_VERSION:
        raise OlderFormatError(
            f"{folder} has format version {found}, an older format; this Vitrine reads version "
            f"{FORMAT_VERSION} alone. Make it again: rerun the stage that made it."
        )


def _verify_parent(folder: Path, name: str, parent: Mapping[str, str]) -> None:
    path = _parent_path(folder, parent)
    if not path.exists():
        return  # an artifact can be used without its parent; `Artifact.parent` raises
    found = artifact_hash(path)
    if found != parent["hash"]:
        raise VitrineError(
            f"{folder} was made from the {name} {parent['hash'][:12]}…, but {path} is "
            f"{found[:12]}…; pass the right {name}, or rerun the stage that made {folder.name}."
        )


def _parent_path(folder: Path, parent: Mapping[str, str]) -> Path:
    return Path(os.path.normpath(folder / parent["path"]))


def _checksums(folder: Path) -> dict[str, str]:
    found = {path.relative_to(folder).as_posix(): path for path in list_files(folder)}
    return {name: file_sha256(path) for name, path in found.items() if name != CARD}


def _content_hash(checksums: Mapping[str, str]) -> str:
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _to_json(value: Any) -> Any:
    """`value` in JSON types: numpy scalars and arrays unwrapped, paths as text, NaN and ∞ as null."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_to_json(inner) for inner in (sorted(value) if isinstance(value, set) else value)]
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return _to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
