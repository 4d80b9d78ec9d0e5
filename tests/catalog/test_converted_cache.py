"""The cache of converted catalogs and the fingerprints that are its keys."""

import json
import random
import shutil
from pathlib import Path

import pytest

from catalog.cache import cache_folder
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig

HISTORIES = {"a": ["007", "7", "010"], "b": ["7", "010"]}

ITEMS = [{"item_id": "x", "title": "X"}, {"item_id": "y", "title": "Y"}]


def bought(*rows, **more):
    """Interactions of (user, item, time)."""
    return [{"user_id": u, "item_id": i, "timestamp": t, **more} for u, i, t in rows]


def test_the_users_folder_is_never_written_to(world, cache):
    catalog = world()
    catalog.item_text(0)
    assert sorted(p.name for p in world.folder.iterdir()) == ["interactions.jsonl", "items.jsonl"]
    assert cache_folder() == cache
    made = sorted(path.name for path in (cache / "catalogs").iterdir())
    assert len(made) == 2
    assert [name.startswith("items-") for name in made] == [False, True]


def test_an_unchanged_catalog_is_not_converted_again(world, monkeypatch):
    before = world()
    monkeypatch.setattr("catalog.conversion.cache.convert", None)
    assert world().fingerprint == before.fingerprint


def test_the_fingerprint_is_of_the_content_and_not_of_the_path(world, tmp_path):
    before = world()
    shutil.copytree(world.folder, tmp_path / "elsewhere")
    moved = load_catalog(CatalogConfig(str(tmp_path / "elsewhere")))
    assert moved.fingerprint == before.fingerprint
    assert moved.folder != before.folder


def test_the_fingerprint_changes_with_texts_images_and_reading_rules(world):
    prints = {world().fingerprint, world(ties="shuffle").fingerprint}
    prints.add(world(roles={"title": None}).fingerprint)
    (world.folder / "a.jpg").write_bytes(b"1")
    prints.add(world().fingerprint)
    (world.folder / "a.jpg").write_bytes(b"12")
    prints.add(world().fingerprint)
    (world.folder / "catalog.yaml").write_text(json.dumps({"roles": {"price": None}}))
    prints.add(world().fingerprint)
    prints.add(world([{"item_id": i} for i in ("007", "010", "011", "7")]).fingerprint)
    assert len(prints) == 7


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_another_interaction_leaves_the_content_fingerprint_as_it_is(world, suffix):
    before = world(interactions=bought(("a", "7", 40)), suffix=suffix)
    after = world(interactions=bought(("a", "7", 40), ("c", "7", 50)), suffix=suffix)
    assert after.fingerprint != before.fingerprint
    assert after.content_fingerprint == before.content_fingerprint


def test_the_content_fingerprint_changes_with_items_media_and_roles(world):
    prints = {world().content_fingerprint, world(roles={"title": None}).content_fingerprint}
    (world.folder / "a.jpg").write_bytes(b"1")
    prints.add(world().content_fingerprint)
    (world.folder / "a.jpg").write_bytes(b"12")
    prints.add(world().content_fingerprint)
    prints.add(world([{"item_id": i} for i in ("007", "010", "011", "7")]).content_fingerprint)
    assert len(prints) == 5


def test_a_moved_catalog_finds_its_images(world, tmp_path):
    items = [{"item_id": "x", "image": "a.jpg"}]
    world(items, bought(("u", "x", 1)))
    shutil.move(world.folder, tmp_path / "moved")
    catalog = load_catalog(CatalogConfig(str(tmp_path / "moved")))
    assert Path(catalog.items[0]["image"]) == tmp_path / "moved" / "a.jpg"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("VITRINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vitrine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vitrine"


def test_a_damaged_cached_catalog_is_detected_and_converted_again(world, cache, capsys):
    expected = world().interactions.items.tolist()
    files = sorted((cache / "catalogs").glob("*/*"))
    assert {path.name for path in files} >= {"items.arrow", "items.npy"}
    rng = random.Random(0)
    for place in range(5 * len(files)):
        path = files[place % len(files)]
        content = bytearray(path.read_bytes())
        if place < len(files):
            content = content[: rng.randrange(len(content))]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(content))
        catalog = load_catalog(CatalogConfig(str(world.folder)))
        assert "is damaged" in capsys.readouterr().err, path.name
        assert catalog.interactions.items.tolist() == expected
        load_catalog(CatalogConfig(str(world.folder)))
        assert capsys.readouterr().err == ""
