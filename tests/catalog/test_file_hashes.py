"""Hashes of large files are kept, and trusted as long as the file is what it was."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import file_hashes
from catalog.file_hashes import known_sha256


@pytest.fixture
def hashed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[Path]]:
    """Files that were read so far; every file counts as large."""
    read: list[Path] = []
    sha256 = file_hashes.file_sha256

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(file_hashes, "LARGE", 1)
    monkeypatch.setattr(file_hashes, "file_sha256", counted)
    return lambda: read


def large_file(folder: Path, text: str = "content", seconds_ago: float = 60) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_a_large_file_is_read_once(
    tmp_path: Path, hashed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    path = large_file(tmp_path)
    assert known_sha256(path) == known_sha256(path)
    assert hashed() == [path]


def test_a_file_that_changed_is_read_again_though_its_size_and_time_are_as_before(
    tmp_path: Path, hashed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    path = large_file(tmp_path, "content")
    modified = path.stat().st_mtime_ns
    before = known_sha256(path)
    time.sleep(0.02)
    path.write_text("CONTENT")
    os.utime(path, ns=(modified, modified))
    assert known_sha256(path) != before


def test_a_file_that_changed_a_moment_before_is_read_again(tmp_path: Path, hashed: Any) -> None:
    path = large_file(tmp_path)
    known_sha256(path)
    known_sha256(path)
    assert hashed() == [path, path]


def test_a_hash_is_trusted_for_a_week(
    tmp_path: Path, hashed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    path = large_file(tmp_path)
    known_sha256(path)
    now = time.time()
    monkeypatch.setattr(file_hashes.time, "time", lambda: now + 8 * 86_400)
    known_sha256(path)
    assert hashed() == [path, path]
