"""Paths of pictures: other spellings, links, and ways out of the folder."""

import os
from pathlib import Path

from benchmarks.fuzz.kit import Parser
from benchmarks.fuzz.values import column_of, texts
from catalog.notes import Notes
from catalog.values.paths import find_pictures

PATHS = [
    *(
        "images/a.jpg",
        "../../secret.jpg",
        "/etc/passwd",
        "images/../../secret.jpg",
        "link.jpg",
        "out/x.jpg",
    ),
    *(
        "\\\\host\\share\\a.jpg",
        "file:///etc/passwd",
        "C:\\Windows\\a.jpg",
        "images/a.jpg\0.png",
        "~/x",
    ),
    *(
        "images\\a.jpg",
        "IMAGES/A.JPG",
        "images/a",
        "%2e%2e/secret.jpg",
        "..\\secret.jpg",
        "images/%2e%2e",
    ),
    *(
        '["images/a.jpg"]',
        "['../../secret.jpg']",
        "images/a.jpg|b",
        "a" * 300,
        "images/" * 200,
        ".",
        "..",
        "",
    ),
    *(
        "//host/x.jpg",
        "http://127.0.0.1/a.jpg",
        "out",
        "dir",
        "images/a.jpg/",
        "loop/loop/loop/a.jpg",
    ),
    *(
        "{'a': '../../secret.jpg'}",
        "[" * 3000 + "]" * 3000,
        *("[{[]: 1}]", "[1e999]", "[b'x']", '["\\ud800"]'),
        "images/./a.jpg",
        "/proc/self/environ",
        "..%2fsecret.jpg",
    ),
]


def _shop(folder: Path) -> None:
    """A shop with links out of its folder."""
    base, outside = folder / "shop", folder.parent / "outside"
    for inner in (base / "images", base / "dir", outside):
        inner.mkdir(parents=True, exist_ok=True)
    (base / "images" / "a.jpg").touch()
    for secret in (outside / "x.jpg", folder.parent / "secret.jpg"):
        secret.write_bytes(b"secret")
    os.symlink(folder.parent / "secret.jpg", base / "link.jpg")
    os.symlink(outside, base / "out")
    os.symlink(base / "loop", base / "loop")


def _paths(given: list[str | None], folder: Path) -> object:
    base = folder / "shop"
    notes = Notes()
    found = find_pictures(column_of(given), column_of(["x"] * len(given)), base, "items", notes)
    for path in found.to_pylist():
        real = None if path is None or "\0" in path else os.path.realpath(path)
        inside = (
            real is None
            or real.startswith(str(base.resolve()) + os.sep)
            or real == str(base.resolve())
        )
        assert inside, "a path outside"
    return found.to_pylist(), notes.listed


PARSERS = {"picture paths": Parser(texts(PATHS), _paths, prepare=_shop)}
