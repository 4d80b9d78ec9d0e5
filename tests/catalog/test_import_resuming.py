"""An import that was interrupted goes on where it stopped, and ends as if nothing had happened."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pyarrow import parquet

from catalog.errors import VitrineError
from catalog.importing import load as load_module
from catalog.importing import run as run_module
from catalog.importing.config import ImportConfig
from catalog.importing.run import Imported, run_import, work_folder
from catalog.importing.store import Store

NUM = 3000


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop whose interactions are read in some ten batches; some ids have blanks at their ends."""
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 8000)
    draw = random.Random(0)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text(
        "item_id,title\n" + "".join(f"i{n},T{n}\n" for n in range(50))
    )
    rows = (
        f"u{draw.randrange(200)}{' ' * (n % 500 == 0)},i{draw.randrange(50)},{n}\n"
        for n in range(NUM)
    )
    (folder / "interactions.csv").write_text("user_id,item_id,time\n" + "".join(rows))
    return folder


def imported(shop: Path, name: str = "imported", **settings: Any) -> Imported:
    return run_import(ImportConfig(str(shop), **settings), shop.with_name(name))


def content(done: Imported) -> tuple[Any, ...]:
    tables = [parquet.read_table(done.folder / f"{n}.parquet") for n in ("items", "interactions")]
    return *(table.to_pylist() for table in tables), done.counts, list(map(str, done.notes.listed))


def stopping(after: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, interrupted when it was called so often."""
    calls = 0

    def stop(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return call(*given, **more)

    return stop


def counting(call: Callable[..., Any], rows: list[int]) -> Callable[..., Any]:
    def count(store: Store, table: str, given: Any) -> Any:
        if table == "kept":
            rows.append(given.num_rows)
        return call(store, table, given)

    return count


def test_loading_goes_on_behind_the_rows_that_are_stored(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = content(imported(shop, "whole"))
    with monkeypatch.context() as patched:
        patched.setattr(Store, "insert", stopping(4, Store.insert))
        with pytest.raises(KeyboardInterrupt):
            imported(shop)
    assert work_folder(shop.with_name("imported")).is_dir()
    rows: list[int] = []
    monkeypatch.setattr(Store, "insert", counting(Store.insert, rows))
    capsys.readouterr()
    done = imported(shop)
    assert 0 < sum(rows) < NUM
    assert "continuing the import" in capsys.readouterr().err
    assert content(done) == expected
    assert any("blanks at the ends of 6 ids" in note for note in expected[3])
    assert not list(shop.parent.glob("*.work")) + list(shop.parent.glob(".imported*"))


@pytest.mark.parametrize(
    "step", ["filter_rows", "select_rows", "write_items", "write_interactions"]
)
def test_after_loading_nothing_is_loaded_again(
    shop: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"min_user_interactions": 12, "min_item_interactions": 20}
    expected = content(imported(shop, "whole", **settings))
    with monkeypatch.context() as patched:
        whole = getattr(run_module, step)

        def stop(*given: Any) -> None:
            whole(*given)
            raise KeyboardInterrupt

        patched.setattr(run_module, step, stop)
        with pytest.raises(KeyboardInterrupt):
            imported(shop, **settings)
    rows: list[int] = []
    monkeypatch.setattr(Store, "insert", counting(Store.insert, rows))
    assert content(imported(shop, **settings)) == expected
    assert rows == []


def test_another_import_begins_anew(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Store, "insert", stopping(4, Store.insert))
        with pytest.raises(KeyboardInterrupt):
            imported(shop)
    with (shop / "interactions.csv").open("a") as file:
        file.write("new,i1,5\n")
    rows: list[int] = []
    monkeypatch.setattr(Store, "insert", counting(Store.insert, rows))
    assert imported(shop).counts["interactions"]["read"] == NUM + 1
    assert sum(rows) == NUM + 1


def test_a_killed_import_goes_on(shop: Path) -> None:
    expected = content(imported(shop, "whole"))
    code = (
        "import os, sys\n"
        "import catalog.reading.streams as streams\n"
        "streams.BLOCK = 8000\n"
        "from catalog.importing.config import ImportConfig\n"
        "from catalog.importing.run import run_import\n"
        "from catalog.importing.store import Store\n"
        "insert, calls = Store.insert, []\n"
        "def killed(*given):\n"
        "    calls.append(1)\n"
        "    os._exit(9) if len(calls) > 5 else insert(*given)\n"
        "Store.insert = killed\n"
        "from pathlib import Path\n"
        f"run_import(ImportConfig({str(shop)!r}), Path({str(shop.with_name('imported'))!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), timeout=120, check=False)
    assert done.returncode == 9
    assert content(imported(shop)) == expected


def test_a_second_process_is_refused_in_one_line(shop: Path) -> None:
    work = work_folder(shop.with_name("imported"))
    work.mkdir()
    with (
        FileLock(work.with_name(f".{work.name}.lock")),
        pytest.raises(VitrineError, match="another process imports into"),
    ):
        imported(shop)


def test_a_mistake_leaves_no_work_folder(shop: Path) -> None:
    with pytest.raises(VitrineError, match="no interaction is left"):
        imported(shop, min_user_interactions=1000)
    assert not list(shop.parent.glob("*imported*"))


def test_first_rows_are_skipped_across_batches() -> None:
    import pyarrow as pa

    batches = [pa.record_batch({"n": list(range(k, k + 3))}) for k in (0, 3, 6)]
    for rows in range(10):
        left = [n for batch in load_module.skip_rows(batches, rows) for n in batch["n"].to_pylist()]
        assert left == list(range(rows, 9))
