"""An import that fetches pictures holds them as files, and says what became of each address."""

from pathlib import Path
from typing import Any

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.fetching.run import Fetcher
from catalog.importing.config import FetchConfig, ImportConfig
from catalog.importing.run import Imported, format_counts, run_import
from catalog.yaml_files import read_yaml

from .conftest import write_table
from .fetching_kit import Web, picture, send

NAMES = ["red.jpg", "gone.jpg", "red.jpg", "", "busy.jpg", "local"]


@pytest.fixture
def shop(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six items: three with pictures on the web, of which two are one, one with a file, one with none."""
    folder = tmp_path / "shop"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "own.jpg").write_bytes(picture(9))
    web.pages |= {"/red.jpg": send(picture(255)), "/busy.jpg": send(b"", 503)}
    urls = {"": "", "local": "pictures/own.jpg"}
    items = [
        {"item_id": str(n), "image": urls.get(name, f"https://cdn.test/{name}")}
        for n, name in enumerate(NAMES)
    ]
    write_table(folder / "items.csv", items)
    rows = [{"user_id": "u", "item_id": str(n), "time": n} for n in range(6)]
    write_table(folder / "interactions.csv", rows)

    def fetcher(folder: Path, config: FetchConfig) -> Fetcher:
        downloader = web.downloader(retries=0)
        downloader.tls = _NoTls()  # pyright: ignore[reportAttributeAccessIssue]
        return Fetcher(folder, config, downloader)

    monkeypatch.setattr("catalog.importing.fetch.Fetcher", fetcher)
    return folder


class _NoTls:
    def wrap_socket(self, plain: Any, server_hostname: str) -> Any:
        return plain


def imported(shop: Path, **settings: Any) -> Imported:
    return run_import(ImportConfig(str(shop), **settings), shop.parent / "out")


def test_pictures_on_the_web_become_files_of_the_import(shop: Path) -> None:
    result = imported(shop, fetch_images=True)
    images = load_catalog(CatalogConfig(str(result.folder))).items["image"][:]
    assert images[0] == images[2]
    assert Path(images[0]).read_bytes() == picture(255)
    assert Path(images[0]).is_relative_to(result.folder / "images" / "fetched")
    assert Path(images[5]).read_bytes() == picture(9)
    assert [images[n] for n in (1, 3, 4)] == [None] * 3
    assert len(list((result.folder / "images").rglob("*.jpg"))) == 2


def test_every_address_is_accounted_for_by_reason(shop: Path) -> None:
    result = imported(shop, fetch_images=True)
    reasons = {"HTTP status 404": 1, "HTTP status 503": 1}
    assert result.counts["pictures"] == {"read": 3, "dropped": reasons, "written": 1}
    assert "pictures written" in format_counts(result)
    written = read_yaml(result.folder / "catalog.yaml")["imported"]
    assert written["counts"]["pictures"] == result.counts["pictures"]
    notes = {note["what"]: note for note in written["notes"]}
    gone = notes["1 web addresses gave none: HTTP status 404"]
    assert gone["examples"] == ["https://cdn.test/gone.jpg"]
    assert notes["1 web addresses gave none: HTTP status 503"]["remedy"]


def test_without_it_a_note_says_how_to_ask_for_it(shop: Path, web: Web) -> None:
    result = imported(shop)
    said = "\n".join(map(str, result.notes.listed))
    assert "4 pictures are web addresses" in said
    assert "--fetch_images true" in said
    assert not web.hits
    assert not (shop.parent / "out.fetched").exists()


def test_the_same_command_fetches_what_failed_for_a_time(shop: Path, web: Web) -> None:
    assert imported(shop, fetch_images=True).is_new
    web.pages["/busy.jpg"] = send(picture(3))
    again = imported(shop, fetch_images=True, fetch=FetchConfig(concurrency=2))
    assert again.is_new
    assert again.counts["pictures"]["written"] == 2
    assert web.hits == {"/red.jpg": 1, "/gone.jpg": 1, "/busy.jpg": 2}
    third = imported(shop, fetch_images=True)
    assert not third.is_new
    assert third.counts == again.counts


def test_an_interrupted_import_keeps_what_was_fetched(
    shop: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("catalog.importing.run.write_items", stop)
        with pytest.raises(KeyboardInterrupt):
            imported(shop, fetch_images=True)
    assert not (shop.parent / "out").exists()
    assert imported(shop, fetch_images=True).is_new
    assert web.hits["/red.jpg"] == 1


def test_what_is_fetched_and_how_much_of_it_is_part_of_the_import(shop: Path) -> None:
    imported(shop, fetch_images=True, fetch=FetchConfig(max_pixels=9))
    settings = read_yaml(shop.parent / "out" / "catalog.yaml")["imported"]["settings"]
    assert settings == {"fetch_images": True, "fetch.max_pixels": 9}
    for others in ({}, {"fetch_images": True}):
        with pytest.raises(VitrineError, match="other settings"):
            imported(shop, **others)


def test_only_pictures_of_written_items_are_fetched(shop: Path, web: Web) -> None:
    rows = [
        {"user_id": "u", "item_id": "0", "time": 1},
        {"user_id": "v", "item_id": "0", "time": 2},
    ]
    write_table(shop / "interactions.csv", rows)
    imported(shop, fetch_images=True, min_item_interactions=1)
    assert web.hits == {"/red.jpg": 1}


def test_lists_of_addresses_give_their_first(shop: Path, web: Web) -> None:
    both = '["https://cdn.test/red.jpg", "https://cdn.test/gone.jpg"]'
    write_table(shop / "items.csv", [{"item_id": str(n), "image": both} for n in range(6)])
    result = imported(shop, fetch_images=True)
    assert result.counts["pictures"] == {"read": 1, "dropped": {}, "written": 1}
    images = load_catalog(CatalogConfig(str(result.folder))).items["image"][:]
    assert all(images)
