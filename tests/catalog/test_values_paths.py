"""Picture paths find their files, however they are written."""

import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.values.paths import find_pictures


def find(folder: Path, *paths: str | None):
    """Paths relative to the folder, and the notes."""
    notes = Notes()
    column = pa.chunked_array([pa.array(list(paths), pa.large_string())])
    ids = pa.chunked_array([[f"i{n}" for n in range(len(paths))]])
    found = find_pictures(column, ids, folder, "items: image", notes).to_pylist()
    return [
        None if path is None else Path(path).relative_to(folder).as_posix() for path in found
    ], notes.listed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/a.jpg", "images/b c.png", "images/Cafe\u0301.jpg", "two.jpg", "two.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        ("IMAGES/A.JPG", "images/a.jpg"),
        ("images/b%20c.png", "images/b c.png"),
        (unicodedata.normalize("NFC", "images/Cafe\u0301.jpg"), "images/Cafe\u0301.jpg"),
        ("images/a", "images/a.jpg"),
        ("images/a.png", "images/a.jpg"),
        ("images/a.jpg|images/b c.png", "images/a.jpg"),
        ("images/a.jpg, images/b c.png", "images/a.jpg"),
        (".\\Images\\B%20C.jpeg", "images/b c.png"),
    ],
)
def test_a_path_written_in_another_way_finds_the_only_file_and_is_said(folder, path, expected):
    found, (note,) = find(folder, "images/a.jpg", path)
    assert found == ["images/a.jpg", expected]
    assert note.count == 1
    assert path in note.examples[0]


@pytest.mark.parametrize("text", ['["images/a.jpg", "two.png"]', "['images/a.jpg', 'two.png']"])
def test_of_a_list_the_first_picture_is_read(folder, text):
    found, (note,) = find(folder, text)
    assert found == ["images/a.jpg"]
    assert "of which the first is read" in note.what


def test_exact_paths_give_no_note(folder):
    assert find(folder, "images/a.jpg", None, "./two.png") == (
        ["images/a.jpg", None, "two.png"],
        [],
    )


def test_two_files_that_fit_are_not_guessed_between(folder):
    _, (note,) = find(folder, "two")
    assert "1 pictures are missing" in note.what


def test_missing_pictures_are_counted_with_the_nearest_names(folder):
    _, (note,) = find(folder, "images/aa.jpg", "nowhere/x.jpg", "images/a.jpg")
    assert (note.kind, note.count) == ("empty", 2)
    assert "Did you mean 'a.jpg'" in note.examples[0]


@pytest.mark.parametrize(
    "address", ["https://example.org/a.png", "//cdn.example.org/a.png", '["http://e.org/a.png"]']
)
def test_web_addresses_are_no_pictures_yet(folder, address):
    found, notes = find(folder, address, "images/a.jpg")
    assert found == [None, "images/a.jpg"]
    assert "no picture yet" in notes[-1].what
    assert "--fetch_images true" in notes[-1].remedy


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "..\\secret.jpg", "%2E%2E/secret.jpg", "link.jpg"]
)
def test_no_form_of_a_path_leads_out_of_the_folder(folder, tmp_path, path):
    inside = folder / "shop"
    inside.mkdir()
    (folder / "secret.jpg").write_bytes(b"x")
    (inside / "link.jpg").symlink_to(folder / "secret.jpg")
    if path.startswith(("../", "link")):
        with pytest.raises(VitrineError, match=r"item i0 has the image .* outside"):
            find(inside, path)
    else:
        assert "missing" in find(inside, path)[1][0].what


def test_a_loose_path_to_a_link_that_leads_out_is_refused(folder):
    inside = folder / "shop"
    inside.mkdir()
    (folder / "secret.jpg").write_bytes(b"x")
    (inside / "link.jpg").symlink_to(folder / "secret.jpg")
    with pytest.raises(VitrineError, match="outside"):
        find(inside, "LINK.JPG")


def test_names_that_no_file_can_have_are_missing(folder):
    assert "missing" in find(folder, "a\0b.jpg", "x" * 5000)[1][0].what


def test_many_pictures_are_found_with_one_listing(folder):
    paths = [f"images/{n}.JPG" for n in range(20_000)] + ["images/a.jpg"] * 20_000
    begin = time.process_time()
    find(folder, *paths)
    assert time.process_time() - begin < 5
