"""The block store under media decoding, cached frozen features and embedding: resumed, never half done."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from pretrain.block_store import BlockStore
from pretrain.modalities import media
from pretrain.vector_file import open_vectors

NAMES = ["ash", "birch", "cedar", "date", "elm", "fir"]


def open_store(folder: Path) -> BlockStore:
    store = BlockStore(folder, num_rows=10, block_size=4)
    store.add_vectors("vectors", 2)
    store.add_array("flags", (), np.uint8)
    return store


def fill(store: BlockStore, stop_at: int = -1, **ranks: int) -> list[int]:
    """The first rows of the blocks that were written; may stop as Ctrl-C does."""
    written: list[int] = []

    def write(rows: NDArray[np.int64]) -> None:
        if rows[0] == stop_at:
            raise KeyboardInterrupt
        store.vectors["vectors"].write(rows, np.stack([rows, rows], axis=1).astype(np.float32))
        store.arrays["flags"][rows] = 1
        written.append(int(rows[0]))

    store.fill(write, "Writing", progress=False, **ranks)
    return written


def test_a_stopped_fill_resumes_with_the_blocks_that_are_pending(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(open_store(tmp_path), stop_at=4)
    store = open_store(tmp_path)
    assert store.pending_blocks() == [1, 2]
    assert fill(store) == [4, 8]
    assert store.is_complete
    assert not fill(open_store(tmp_path)), "no block is written twice"
    found = open_vectors(tmp_path / "vectors.safetensors")
    np.testing.assert_array_equal(found[:, 0], np.arange(10))
    assert open_store(tmp_path).arrays["flags"].all()


def test_ranks_share_the_blocks_of_one_store(tmp_path: Path) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    assert fill(first, rank=0, num_ranks=2) == [0, 8]
    assert not second.is_complete
    assert fill(second, rank=1, num_ranks=2) == [4]
    assert first.is_complete
    assert second.is_complete


@pytest.mark.parametrize("lost", ["vectors.safetensors", "flags.npy"])
def test_a_file_that_is_gone_makes_every_block_pending(lost: str, tmp_path: Path) -> None:
    fill(open_store(tmp_path))
    (tmp_path / lost).unlink()
    assert open_store(tmp_path).pending_blocks() == [0, 1, 2]


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    """Six items; all but the last name a file."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows: list[dict[str, str | None]] = [
        {"item_id": name, "title": name, "audio": f"{name}.wav"} for name in NAMES[:5]
    ]
    rows.append({"item_id": NAMES[5], "title": NAMES[5], "audio": None})
    for name in NAMES[:5]:
        (folder / f"{name}.wav").write_bytes(b"RIFF")
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = [f"{u},{NAMES[(u + t) % 6]},{10 * u + t}" for u in range(6) for t in range(4)]
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp", *taken]) + "\n"
    )
    return load_catalog(CatalogConfig(path=str(folder)))


def test_decoding_resumes_where_it_was_stopped(
    shop: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(media, "BLOCK", 2)
    decoded: list[str] = []

    def decode(path: str, stop_at: str = "") -> np.ndarray:
        name = Path(path).stem
        if name == stop_at:
            raise KeyboardInterrupt
        decoded.append(name)
        return np.full(3, len(decoded), dtype=np.uint8)

    def cache(stop_at: str = "") -> media.MediaCache:
        arguments = (shop, "audio", "test", (3,), np.uint8)
        return media.MediaCache(*arguments, lambda path: decode(path, stop_at), "Reading")

    with pytest.raises(KeyboardInterrupt):
        cache(stop_at="date")
    assert set(decoded) >= {"ash", "birch"}
    done = cache()
    assert decoded.count("ash") == decoded.count("birch") == 1
    assert done.present.tolist() == [True] * 5 + [False]
    assert (done.values[done.present] > 0).all()
    count = len(decoded)
    cache()
    assert len(decoded) == count, "nothing is decoded twice"


SHARE = """
import os, sys, time
from pathlib import Path
import numpy as np
from pretrain.block_store import BlockStore

store = BlockStore(Path(sys.argv[1]), num_rows=24, block_size=2)
store.add_array("owner", (3,), np.int64)

def write(rows):
    time.sleep(3 if sys.argv[3:] else 0.1)
    for row in rows:
        store.write_row("owner", int(row), np.full(3, int(sys.argv[2])))
    print(rows[0] // 2)
    if sys.argv[3:] == ["dies"]:
        os._exit(1)

store.fill_together(write, "Writing", progress=False)
assert store.is_complete
"""


def share(folder: Path, owner: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SHARE, str(folder), str(owner), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_fill_a_store_together_and_each_waits_for_all_blocks(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, num_rows=24, block_size=2)  # before they race to make it
    owner = store.add_array("owner", (3,), np.int64)
    processes = [share(tmp_path, number) for number in (1, 2, 3)]
    written = [[int(line) for line in one.communicate(timeout=60)[0].split()] for one in processes]
    assert [one.returncode for one in processes] == [0, 0, 0]
    assert sorted(itertools.chain(*written)) == list(range(12)), "each block is written once"
    for number, blocks in enumerate(written, start=1):
        for block in blocks:
            assert (owner[2 * block : 2 * block + 2] == number).all()


def test_a_block_of_a_process_that_died_is_written_by_another(tmp_path: Path) -> None:
    BlockStore(tmp_path, num_rows=24, block_size=2).add_array("owner", (3,), np.int64)
    processes = [share(tmp_path, 1, "dies"), share(tmp_path, 2)]
    for one in processes:
        one.communicate(timeout=60)
    assert [one.returncode for one in processes] == [1, 0]
    assert BlockStore(tmp_path, num_rows=24, block_size=2).is_complete


def test_a_filled_store_keeps_no_file_open(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, num_rows=10, block_size=4)
    array = store.add_array("owner", (3,), np.int64)
    opened = len(os.listdir("/proc/self/fd"))

    def write(rows: NDArray[np.int64]) -> None:
        for row in rows:
            store.write_row("owner", int(row), np.full(3, 7))

    store.fill_together(write, "Writing", progress=False)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert (array == 7).all()


def test_a_store_that_was_divided_otherwise_is_filled_anew(tmp_path: Path) -> None:
    fill(open_store(tmp_path))
    other = BlockStore(tmp_path, num_rows=10, block_size=3)
    assert other.pending_blocks() == [0, 1, 2, 3]
