"""The database of an import: what it drops takes no memory of its own."""

from pathlib import Path

import pytest

from catalog.errors import VitrineError
from catalog.importing import store as store_module
from catalog.importing.store import Store

ROWS = 4_000_000


def filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_module, "MEMORY", "30MB")
    store = Store(folder)
    store.run(
        "CREATE TABLE kept AS SELECT range AS row, range % 5 AS rating, 'review ' || range AS review "
        f"FROM range({ROWS})"
    )
    store.run("CHECKPOINT")
    store.num_kept = ROWS
    return store


def test_more_rows_than_memory_can_mark_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:  # deleted in place they would not fit
        patch.setattr(store_module, "MOST_DELETED", ROWS)
        with pytest.raises(VitrineError, match="Out of Memory"):
            store.drop("rating = 0", "rated below 1")
    monkeypatch.setattr(store_module, "MOST_DELETED", ROWS // 40)
    assert store.drop("rating = 0", "rated below 1") == ROWS // 5
    assert store.number("SELECT count(*) FROM kept") == store.num_kept == ROWS * 4 // 5
    assert store.drop("row < 100", "too old") == 80
    assert store.number("SELECT count(*) FROM kept") == store.num_kept
