"""Catalogs are converted once, in parts that change alone, and imported ones batch by batch."""

import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import catalog.conversion.cache as cache_module
import catalog.conversion.imported as imported_module
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.importing.config import ImportConfig
from catalog.importing.run import run_import
from catalog.sources import SOURCES

from .conftest import write_table


def bought(*rows: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"user_id": user, "item_id": item, "timestamp": time} for user, item, time in rows]


def content(catalog: Catalog) -> dict[str, Any]:
    """Everything that a catalog holds, to compare."""
    interactions = catalog.interactions
    reviews, labels = interactions.reviews, interactions.split_labels
    return {
        "items": catalog.items.data.table.to_pylist(),
        "columns": catalog.columns.to_pylist(),
        "users": catalog.user_ids.tolist(),
        "offsets": interactions.offsets.tolist(),
        "rows": interactions.items.tolist(),
        "times": interactions.times.tolist(),
        "ratings": None if interactions.ratings is None else interactions.ratings.tolist(),
        "reviews": None if reviews is None else list(reviews),
        "labels": None if labels is None else labels.to_pylist(),
        "edges": None if catalog.edges is None else catalog.edges.tolist(),
        "roles": catalog.roles,
        "has_timestamps": catalog.has_timestamps,
        "notes": {str(note) for note in catalog.notes},
    }


def shop(folder: Path, times: str) -> Path:
    """A shop with HTML, prices, missing pictures, links between items, equal times and reviews."""
    draw = random.Random(0)
    folder.mkdir()
    (folder / "pictures").mkdir()
    (folder / "pictures" / "3.JPG").write_bytes(b"x")
    items = [
        {
            "item_id": f"{n:03}",
            "title": f"Thing {n}",
            "description": f"<p>Warm&nbsp;{n}</p>" if n % 3 else "plain",
            "category": "a" if n % 2 else None,
            "image": f"pictures/{n}.jpg",
            "price": n + 0.5,
        }
        for n in range(20)
    ]
    moment = {
        "whole": lambda: f"2021-0{draw.randrange(1, 5)}-01 10:00:00",
        "fractions": lambda: f"2021-0{draw.randrange(1, 5)}-01 10:00:00.5",
        "numbers": lambda: draw.randrange(20),
    }
    rows = [
        {
            "user_id": f"u{draw.randrange(9)}" * draw.choice([1, 1, 1]),
            "item_id": f"{draw.randrange(20):03}",
            "rating": draw.choice([1.5, 2, 5]),
            "review": draw.choice(["fine", "<b>bad</b>", None]),
        }
        | ({"time": moment[times]()} if times in moment else {})
        for _ in range(150)
    ]
    write_table(folder / "items.parquet", items)
    write_table(folder / "interactions.parquet", rows)
    write_table(folder / "edges.csv", [{"a": "001", "b": "002"}, {"a": "004", "b": "001"}])
    return folder


@pytest.mark.parametrize("ties", ["file", "shuffle"])
@pytest.mark.parametrize("times", ["whole", "fractions", "numbers", "none"])
def test_an_imported_folder_in_batches_is_the_catalog_that_it_is_in_memory(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    ties: Any,
    times: str,
) -> None:
    target = tmp_path / "imported"
    run_import(ImportConfig(str(shop(tmp_path / "shop", times))), target)
    monkeypatch.setattr(imported_module, "HISTORY_ROWS", 40)
    monkeypatch.setattr(imported_module, "ITEM_ROWS", 7)
    in_memory = cache_module.convert
    monkeypatch.setattr(cache_module, "convert", None)
    config = CatalogConfig(str(target), ties=ties)
    in_batches = content(load_catalog(config))
    for name in ("items", "interactions"):
        path = target / f"{name}.parquet"
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    monkeypatch.setattr(cache_module, "convert", in_memory)
    assert content(load_catalog(config)) == in_batches
    assert len(in_batches["users"]) == 9


@pytest.mark.parametrize(
    "config",
    [{"min_rating": 2.0}, {"roles": {"time": None}}],
    ids=["min_rating", "roles"],
)
def test_an_imported_folder_is_decided_anew_where_the_settings_say_so(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    target = tmp_path / "imported"
    run_import(ImportConfig(str(shop(tmp_path / "shop", "whole"))), target)
    assert imported_module.find_imported(
        SOURCES["folder"].tables(CatalogConfig(str(target))), CatalogConfig(str(target))
    )
    changed = CatalogConfig(str(target), **config)
    assert imported_module.find_imported(SOURCES["folder"].tables(changed), changed) is None
    load_catalog(changed)


def without_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the items table cannot be read."""
    source = SOURCES["folder"]

    def tables(config: CatalogConfig) -> Any:
        def refuse() -> pa.Table:
            raise AssertionError("the items are read")

        return replace(source.tables(config), read_items=refuse)

    monkeypatch.setitem(SOURCES, "folder", replace(source, tables=tables))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_more_interactions_read_no_item_again(
    world: Any, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world(suffix=suffix)
    without_items(monkeypatch)
    rows = bought(("b", "010", 30), ("a", "7", 20), ("c", "011", 7))
    after = world(suffix=suffix, interactions=rows)
    assert after.items.data.table.equals(before.items.data.table)
    assert after.user_ids.tolist() == ["b", "a", "c"]
    assert after.interactions.items.tolist() == [1, 3, 2]
    with pytest.raises(AssertionError, match="the items are read"):
        world(items=[{"item_id": "7"}], interactions=bought(("a", "7", 1)), suffix=suffix)


def test_interactions_that_name_another_id_of_the_items_read_them_again(world: Any) -> None:
    items = [{"item_id": f"{n}", "sku": f"s{n}", "title": f"Thing {n}"} for n in range(4)]
    one = world(items, bought(("a", "1", 1), ("a", "2", 2)))
    other = world(items, bought(("a", "s1", 1), ("a", "s3", 2)))
    assert one.content_fingerprint == other.content_fingerprint
    assert [one.items["item_id"][0], other.items["item_id"][0]] == ["0", "s0"]
    assert other.interactions.items.tolist() == [1, 3]
    assert content(world(items, bought(("a", "1", 1), ("a", "2", 2)))) == content(one)


def test_ids_that_interactions_write_in_another_form_are_aligned_again(world: Any) -> None:
    items = [{"item_id": "1.0", "title": "One"}, {"item_id": "2.0", "title": "Two"}]
    aligned = world(items, bought(("a", "1", 1), ("a", "2", 2)))
    plain = world(items, bought(("a", "1.0", 1), ("a", "2.0", 2)))
    assert aligned.items["item_id"][:] == ["1", "2"]
    assert plain.interactions.items.tolist() == aligned.interactions.items.tolist() == [0, 1]


def test_processes_that_open_a_catalog_together_convert_it_once(
    world: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.folder
    folder.mkdir()
    write_table(folder / "items.jsonl", [{"item_id": "i", "title": "I"}])
    write_table(folder / "interactions.jsonl", bought(("a", "i", 1)))
    convert, calls, users = cache_module.convert, [], []

    def slow(*given: Any) -> Any:
        calls.append(threading.get_ident())
        time.sleep(0.5)
        return convert(*given)

    monkeypatch.setattr(cache_module, "convert", slow)
    monkeypatch.setattr(cache_module, "WAITING_SECONDS", 0.05)

    def opened() -> None:
        users.append(load_catalog(CatalogConfig(str(folder))).user_ids.tolist())

    threads = [threading.Thread(target=opened) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert users == [["a"]] * 3
    assert "another process converts the catalog; waiting" in capsys.readouterr().err


def test_users_of_any_number_of_parts_are_one_array(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_table(folder / "items.csv", [{"item_id": "i", "title": "I"}])
    users = ["a", "bb", "ccc", "Ünï"] * 2
    write_table(folder / "interactions.csv", bought(*((u, "i", n) for n, u in enumerate(users))))
    target = tmp_path / "imported"
    run_import(ImportConfig(str(folder)), target)
    monkeypatch.setattr(imported_module, "HISTORY_ROWS", 1)
    catalog = load_catalog(CatalogConfig(str(target)))
    assert catalog.user_ids.tolist() == ["a", "bb", "ccc", "Ünï"]
    assert np.diff(catalog.interactions.offsets).tolist() == [2, 2, 2, 2]
