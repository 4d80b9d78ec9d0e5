"""Tells whether files are still what was written: sizes and checksums, kept in a text with its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog.staging import files_in, flush_file

Sums = dict[str, tuple[int, str]]
"""Name of a file below a folder → (bytes, sha256)."""


def sums_of(folder: Path, share: int = 0, shares: int = 1) -> Sums:
    """Of every file below, or of one in so many; they are on the disk then."""
    found = {}
    for path in files_in(folder)[share::shares]:
        flush_file(path)
        found[path.relative_to(folder).as_posix()] = (path.stat().st_size, sha256_of(path))
    return found


def fault_in(folder: Path, sums: Mapping[str, tuple[int, str]]) -> str:
    """What is wrong with the files below, in a few words; "" where they are what they were."""
    for name, (size, digest) in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if sha256_of(path) != digest:
            return f"{name} differs from its checksum"
    return ""


def seal(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON with a checksum of itself, for `unseal`; ValueError for a number that is not finite."""
    return json.dumps({**facts, "seal": digest_of(facts)}, indent=indent)


def digest_of(facts: Mapping[str, Any]) -> str:
    """The checksum that `seal` adds."""
    return hashlib.sha256(json.dumps(facts, allow_nan=False).encode()).hexdigest()


def unseal(text: str, indent: int | None = None) -> dict[str, Any]:
    """The facts; ValueError where the text is not what `seal` made, to the byte."""
    facts = json.loads(text)
    if (
        not isinstance(facts, dict)
        or facts.pop("seal", None) is None
        or seal(facts, indent) != text
    ):
        raise ValueError("the text was changed")
    return facts


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
