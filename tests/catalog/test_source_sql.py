"""Tables and queries of a database, read through SQLAlchemy."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.importing.config import ImportConfig
from catalog.importing.run import run_import
from catalog.sources import sql

ALL = "items=products interactions=orders"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE products (item_id TEXT, title TEXT, price NUMERIC, made BLOB);
            INSERT INTO products VALUES ('007', 'Mug; "old"', 12.5, x'00ff'), ('010', NULL, NULL, NULL);
            CREATE TABLE orders (user_id INTEGER, item_id TEXT, bought_at TEXT, state TEXT);
            INSERT INTO orders VALUES (1, '007', '2021-01-02 10:00:00', 'paid'),
                (1, '010', '2021-01-01 10:00:00', 'paid'), (2, '007', '2021-01-03', 'void');
            CREATE TABLE links (a TEXT, b TEXT);
            INSERT INTO links VALUES ('007', '010');
            """
        )
    connection.close()
    return path


def config(database: Path, parts: str = ALL, **more: Any) -> CatalogConfig:
    return CatalogConfig(f"url=sqlite:///{database} {parts}", source="sql", **more)


def test_tables_of_sqlite_are_a_catalog(database: Path, cache: Path) -> None:
    roles = {"time": "bought_at"}
    catalog = load_catalog(config(database, f"{ALL} edges=links", roles=roles))
    assert catalog.items["item_id"][:] == ["007", "010"]
    assert catalog.items["price"][:] == [12.5, None]
    assert catalog.user_ids.tolist() == ["1", "2"]
    assert catalog.interactions.items.tolist() == [1, 0, 0]
    assert catalog.edges is not None
    assert catalog.edges.tolist() == [[0, 1]]


def test_another_query_is_another_catalog(database: Path, cache: Path) -> None:
    paid = """interactions="SELECT user_id, item_id FROM orders WHERE state = 'paid'" """
    one, other = (load_catalog(config(database, part)) for part in (ALL, f"items=products {paid}"))
    assert one.fingerprint != other.fingerprint
    assert [len(one.interactions), len(other.interactions)] == [3, 2]


def test_a_changed_database_is_read_again(database: Path, cache: Path) -> None:
    before = load_catalog(config(database))
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("INSERT INTO orders VALUES (3, '010', '2021-02-01', 'paid')")
        connection.commit()
        after = load_catalog(config(database))
    assert [before.num_users, after.num_users] == [2, 3]


def test_answers_come_in_batches_of_one_schema(
    database: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "ROWS", 1)
    settings = ImportConfig(config(database).path, "sql", min_user_interactions=2)
    done = run_import(settings, tmp_path / "imported")
    assert done.counts["interactions"]["read"] == 3
    assert done.counts["interactions"]["written"] == 2
    assert load_catalog(CatalogConfig(str(done.folder))).items["title"][:] == ['Mug; "old"', None]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "names no url; write 'url=sqlite:///shop.db"),
        ("url=sqlite:///{db} items=products", "names no interactions"),
        (
            "url=sqlite:///{db} items=products orders=orders",
            "'orders=orders' is none of url, items",
        ),
        ("url=sqlite:///{db}x " + ALL, r"does not exist\. Did you mean 'shop.db'"),
        ("url=shop.db " + ALL, "'shop.db' is no URL of a database"),
        (
            "url=postgresql://u:secret@h/d " + ALL,
            r"holds a password.*postgresql://u:\$VARIABLE@h/d",
        ),
        ("url=postgresql://u:$NO_SUCH@h/d " + ALL, r"the environment has no variable \$NO_SUCH"),
        ("url=nothing://h/d " + ALL, "the query of items failed at nothing://h/d"),
        ("url=sqlite:///{db} items=nowhere interactions=orders", "no such table: nowhere"),
        (
            "url=sqlite:///{db} items='DROP TABLE orders' interactions=orders",
            "neither a table nor a",
        ),
    ],
)
def test_a_mistake_is_one_line(database: Path, tmp_path: Path, path: str, line: str) -> None:
    settings = ImportConfig(path.format(db=database), "sql")
    with pytest.raises(VitrineError, match=line) as error:
        run_import(settings, tmp_path / "imported")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_database_that_is_no_file_is_imported_and_never_taken_for_unchanged(
    database: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_sqlite_file", lambda url: None)
    with pytest.raises(VitrineError, match="may change at any time; import it"):
        load_catalog(config(database))
    settings = ImportConfig(config(database).path, "sql")
    assert run_import(settings, tmp_path / "imported").is_new
    with pytest.raises(VitrineError, match="another source or state"):
        run_import(settings, tmp_path / "imported")


def test_values_of_several_types_in_one_column_are_one_line(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO products VALUES (5, 'Five', 'cheap', NULL)")
    connection.close()
    with pytest.raises(
        VitrineError, match=r"the column (item_id|price) of items holds values of several"
    ):
        run_import(ImportConfig(config(database).path, "sql"), tmp_path / "imported")
