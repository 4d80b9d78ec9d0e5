"""The cache can be listed and pruned, and keeps to a limit."""

import os
import time
from pathlib import Path

import pytest

from catalog.cache_entries import keep_within_limit, list_entries, prune_entries
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError

DAY = 86_400


def entry(cache: Path, name: str, kilobytes: int, days_ago: float) -> Path:
    """An entry of a folder with one file."""
    path = cache / name
    path.mkdir(parents=True)
    (path / "values").write_bytes(os.urandom(kilobytes * 1024))
    os.utime(path, (time.time() - days_ago * DAY,) * 2)
    return path


@pytest.fixture
def filled(cache: Path) -> Path:
    entry(cache, "media/old", 400, 30)
    entry(cache, "media/new", 400, 1)
    entry(cache, "catalogs/older", 40, 60)
    entry(cache, "catalogs/used", 40, 0)
    entry(cache, "unknown/theirs", 40, 90)
    return cache


def names() -> list[str]:
    return [each.path.name for each in list_entries()]


def test_entries_are_listed_by_their_last_use_with_their_size(filled: Path) -> None:
    assert names() == ["older", "old", "new", "used"]
    sizes = {each.path.name: each.size for each in list_entries()}
    assert 400 * 1024 <= sizes["old"] <= 420 * 1024


def test_pruning_to_a_size_removes_what_was_not_used_for_longest(filled: Path) -> None:
    removed = prune_entries(500 * 1024)
    assert [each.path.name for each in removed] == ["older", "old"]
    assert names() == ["new", "used"]
    assert (filled / "unknown" / "theirs").exists()
    assert not list(filled.glob("*/.*"))


def test_pruning_by_age_and_kind(filled: Path) -> None:
    assert [e.path.name for e in prune_entries(None, 7 * DAY, ["media"])] == ["old"]
    assert names() == ["older", "new", "used"]


def test_what_was_just_used_is_never_removed(filled: Path) -> None:
    assert len(prune_entries(0)) == 3
    assert len(prune_entries()) == 0
    assert names() == ["used"]


def test_a_dry_run_removes_nothing(filled: Path) -> None:
    assert len(prune_entries(0, dry_run=True)) == 3
    assert len(names()) == 4


def test_the_cache_keeps_to_the_limit_of_the_environment(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_within_limit()
    assert len(names()) == 4
    monkeypatch.setenv("VITRINE_CACHE_LIMIT", "460KiB")
    keep_within_limit()
    assert names() == ["new", "used"]
    monkeypatch.setenv("VITRINE_CACHE_LIMIT", "much")
    with pytest.raises(VitrineError, match="VITRINE_CACHE_LIMIT is 'much'"):
        keep_within_limit()


def test_opening_a_catalog_marks_it_as_used_and_a_pruned_one_is_converted_again(
    world, cache: Path
) -> None:
    expected = world().interactions.items.tolist()
    for path in (cache / "catalogs").iterdir():
        os.utime(path, (time.time() - 9 * DAY,) * 2)
    load_catalog(CatalogConfig(str(world.folder)))
    assert prune_entries(min_age=8 * DAY) == []
    for path in (cache / "catalogs").iterdir():
        os.utime(path, (time.time() - 9 * DAY,) * 2)
    assert len(prune_entries(min_age=8 * DAY)) == 2
    assert load_catalog(CatalogConfig(str(world.folder))).interactions.items.tolist() == expected
