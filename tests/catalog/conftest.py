"""Small worlds to load: a folder of tables, written in the format a test asks for."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig

from .fetching_kit import Web

Rows = list[dict[str, Any]]

ITEMS: Rows = [
    {"item_id": "007", "title": "Red mug", "description": "A mug, red.", "category": "mugs"},
    {"item_id": "010", "title": "Blue mug", "description": "", "category": "mugs"},
    {"item_id": "011", "title": "", "description": "", "category": "plates"},
    {"item_id": "7", "title": "Jug", "description": "Pours.", "category": "jugs"},
]
INTERACTIONS: Rows = [
    {"user_id": "b", "item_id": "010", "timestamp": 30},
    {"user_id": "a", "item_id": "7", "timestamp": 20},
    {"user_id": "a", "item_id": "007", "timestamp": 10},
    {"user_id": "b", "item_id": "7", "timestamp": 5},
    {"user_id": "a", "item_id": "010", "timestamp": 40},
]


def write_table(path: Path, rows: Rows) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case suffix:
            with path.open("w", newline="", encoding="utf8") as file:
                writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
                writer.writerows([rows[0].keys(), *(row.values() for row in rows)])


class World(Protocol):
    folder: Path

    def __call__(
        self,
        items: Rows = ...,
        interactions: Rows = ...,
        *,
        suffix: str = ...,
        **config: Any,
    ) -> Catalog: ...


@pytest.fixture
def world(tmp_path: Path, cache: Path) -> World:
    """Writes a catalog folder and loads it; what is left out is ITEMS and INTERACTIONS."""

    class BatchWriter:
        folder = tmp_path / "shop"

        def __call__(
            self,
            items: Rows = ITEMS,
            interactions: Rows = INTERACTIONS,
            *,
            suffix: str = "jsonl",
            **config: Any,
        ) -> Catalog:
            self.folder.mkdir(exist_ok=True)
            write_table(self.folder / f"items.{suffix}", items)
            write_table(self.folder / f"interactions.{suffix}", interactions)
            return load_catalog(CatalogConfig(str(self.folder), **config))

    return BatchWriter()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps every test's converted catalogs out of the home folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VITRINE_CACHE", str(folder))
    return folder


def histories(catalog: Catalog) -> dict[str, list[str]]:
    """All users' histories, users and items by id."""
    ids = catalog.items["item_id"][:]
    return {
        str(user): [ids[item] for item in catalog.interactions.history(row)]
        for row, user in enumerate(catalog.user_ids)
    }


@pytest.fixture(name="histories")
def histories_fixture():
    return histories


@pytest.fixture
def catalog_of(world: World) -> Callable[..., Catalog]:
    """{user: {time: item}} → a catalog of ten items."""

    def build(histories: dict[str, dict[int, int]], time: str = "timestamp") -> Catalog:
        rows = [
            {"user_id": user, "item_id": str(item), time: moment}
            for user, history in histories.items()
            for moment, item in history.items()
        ]
        return world([{"item_id": str(n)} for n in range(10)], rows)

    return build


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web()
    yield served
    served.close()
