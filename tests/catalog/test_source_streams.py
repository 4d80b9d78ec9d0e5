"""Sources whose files are large are read in batches, in memory that does not grow with them."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from catalog.config import CatalogConfig
from catalog.sources import SOURCES, RawTables, objects

from .large_layouts import LAYOUTS, amazon_2023


@pytest.fixture(params=LAYOUTS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> CatalogConfig:
    settings = LAYOUTS[request.param](tmp_path, random.Random(7))
    return CatalogConfig(str(tmp_path), **settings)  # pyright: ignore[reportArgumentType]


def opened(config: CatalogConfig) -> RawTables:
    return SOURCES[config.source].tables(config)


def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 2000)
    monkeypatch.setattr("catalog.reading.table.BLOCK", 2000)
    monkeypatch.setattr("catalog.sources.mind_clicks.USERS", 7)
    monkeypatch.setattr("catalog.sources.mind_clicks.PENDING", 100)
    monkeypatch.setattr("catalog.sources.batches.SORTED", 3)


def test_many_small_blocks_give_the_rows_of_one_large_and_say_the_same(
    config: CatalogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(config)
    expected = whole.read_items(), whole.read_interactions()
    in_small_blocks(monkeypatch)
    parts = opened(config)
    read = [parts.item_batches, parts.interaction_batches]
    assert read[1] is not None
    assert (read[0] is not None) == config.source.startswith(("amazon", "folder"))
    for _ in range(2):  # they can be read again and again, and say nothing twice
        for table, batches in zip(expected, read, strict=True):
            if batches is None:
                assert parts.read_items().equals(table.combine_chunks())
                continue
            given = list(batches())
            assert len(given) > 5 or len(table) < 100
            assert pa.Table.from_batches(given).equals(table.combine_chunks())
    assert {note.what for note in parts.notes.listed} == {note.what for note in whole.notes.listed}


def test_memory_does_not_grow_with_the_rows(
    config: CatalogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_blocks(monkeypatch)
    raw = opened(config)
    assert raw.interaction_batches is not None
    size = sum(batch.nbytes for batch in raw.interaction_batches())
    before, peak = pa.total_allocated_bytes(), 0
    for batch in raw.interaction_batches():
        peak = max(peak, pa.total_allocated_bytes() - before)
        del batch
    assert peak < size / 3


def test_an_official_split_is_decided_by_the_first_rows_with_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = amazon_2023(tmp_path, random.Random(7))
    raw = opened(CatalogConfig(str(tmp_path), **settings))  # pyright: ignore[reportArgumentType]
    in_small_blocks(monkeypatch)
    parsed: list[int] = []
    parse = objects._parse

    def counting(block: bytes, schema: pa.Schema) -> object:
        parsed.append(len(block))
        return parse(block, schema)

    monkeypatch.setattr(objects, "_parse", counting)
    assert raw.interaction_batches is not None
    first = next(raw.interaction_batches())
    assert "split" in first.schema.names
    assert len(parsed) < 6
