"""Computes and verifies checksums of files, stored as JSON text with a checksum of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog.atomic_write import fsync_file, list_files

Checksums = dict[str, tuple[int, str]]
"""Name of a file below a folder → (bytes, sha256)."""


def compute_checksums(folder: Path, share: int = 0, shares: int = 1) -> Checksums:
    """Size and sha256 of every file below `folder`, or of every `shares`-th; each is fsynced first."""
    found = {}
    for path in list_files(folder)[share::shares]:
        fsync_file(path)
        found[path.relative_to(folder).as_posix()] = (path.stat().st_size, file_sha256(path))
    return found


def checksum_mismatch(folder: Path, sums: Mapping[str, tuple[int, str]]) -> str:
    """The first difference between the files below `folder` and their checksums; "" for none."""
    for name, (size, digest) in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if file_sha256(path) != digest:
            return f"{name} differs from its checksum"
    return ""


def dumps_with_checksum(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON text that carries its own checksum, read by `loads_with_checksum`.

    Raises ValueError for a number that is not finite.
    """
    return json.dumps({**facts, "seal": json_digest(facts)}, indent=indent)


def json_digest(facts: Mapping[str, Any]) -> str:
    """sha256 of a JSON value: the checksum that `dumps_with_checksum` adds."""
    return hashlib.sha256(json.dumps(facts, allow_nan=False).encode()).hexdigest()


def loads_with_checksum(text: str, indent: int | None = None) -> dict[str, Any]:
    """The value; ValueError where the text is not, to the byte, what `dumps_with_checksum` returned."""
    facts = json.loads(text)
    if (
        not isinstance(facts, dict)
        or facts.pop("seal", None) is None
        or dumps_with_checksum(facts, indent) != text
    ):
        raise ValueError("the text was changed")
    return facts


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
