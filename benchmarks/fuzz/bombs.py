"""Small files that unpack into 10 GiB, archives with names outside, XML and YAML that repeat themselves."""

import bz2
import gzip
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from benchmarks.fuzz.edits import TOKENS
from benchmarks.fuzz.kit import Findings, Parser, answer
from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources import SOURCES
from catalog.sources.folder import read_settings

PIECE = 1 << 26
PIECES = (10 << 30) // PIECE
"""Pieces of 64 MiB in 10 GiB; every format reads pieces that follow each other as one file."""
LAUGHS = (
    '<!DOCTYPE r [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><rss><channel><item><id>&i;</id><title>x</title></item></channel></rss>"
)
OUTSIDE = '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss><channel><item><id>&a;</id></item></channel></rss>'
DTD = '<!DOCTYPE r SYSTEM "http://127.0.0.1/x.dtd"><rss><channel><item><id>1</id></item></channel></rss>'


def _archive(name: str, *, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (0o120777 if link else 0o100644) << 16
        archive.writestr(entry, b"/etc/passwd" if link else bytes(PIECE))
    return buffer.getvalue()


def _yaml_laughs() -> bytes:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join([*lines, "roles: {text: *i, title: *i}"]).encode()


def _cases() -> Iterator[tuple[str, bytes]]:
    """Name of a file → its content."""
    for filler in (b"\0", b"7", b"1,2\n"):
        piece = filler * (PIECE // len(filler))
        yield "a.csv.gz", gzip.compress(piece, 9) * PIECES
        yield "a.csv.zst", zstandard.compress(piece) * PIECES
        yield "a.csv.bz2", bz2.compress(piece) * PIECES
    for name in ("../../x.csv", "/tmp/x.csv", "items.csv"):
        yield "a.zip", _archive(name)
        yield "link.zip", _archive(name, link=True)
    for text in (LAUGHS, OUTSIDE, DTD):
        yield "a.xml", text.encode()
        yield "b.xml.gz", gzip.compress(text.encode())
    yield "catalog.yaml", _yaml_laughs()
    yield "catalog.yaml", b"roles: &a {text: [*a]}"
    for token in (*TOKENS, b'{"a":', b"[1,[", b"- ", b"&amp;lt;", b"<a>"):
        for size in (100, 3000, 50_000):
            yield "items.jsonl", b'{"item_id": "1", "a": ' + token * size + b"}\n"
            yield "items.csv", b"item_id,title\n1," + token * size + b"\n"
            yield "items.txt", b"{'item_id': '1', 'a': " + token * size + b"}\n"


def write_bombs(folder: Path) -> None:
    """Writes all files, each in a folder of its own; in another process, as they take memory."""
    child = os.fork()
    if not child:
        for number, (name, content) in enumerate(_cases()):
            (folder / str(number)).mkdir()
            (folder / str(number) / name).write_bytes(content)
            if name.endswith(".xml") or ".xml." in name:
                (folder / str(number) / "interactions.csv").write_bytes(b"user_id,item_id\na,1\n")
        os._exit(0)
    os.waitpid(child, 0)


def _read(path: Path, folder: Path) -> object:
    if path.suffix == ".yaml":
        return read_settings(path)
    if ".xml" in path.name:
        config = CatalogConfig(str(path), "merchant-feed")
        return SOURCES["merchant-feed"].tables(config).read_items().to_pydict()
    return read_table(path, CatalogConfig(), Notes()).num_rows


READER = Parser(None, _read)  # pyright: ignore[reportArgumentType]
BOMBS = (".gz", ".zst", ".bz2", ".zip", ".xml", ".yaml")


def run_bombs(folder: Path) -> Findings:
    """What the files in `folder` showed; each must be refused, but those that hold one odd value."""
    findings = Findings()
    for inner in sorted(folder.iterdir(), key=lambda one: int(one.name)):
        path = next(one for one in sorted(inner.iterdir()) if one.name != "interactions.csv")
        before = findings.refused
        findings.examples += 1
        answer(READER, path, folder, findings)
        if path.suffix in BOMBS and findings.refused == before:
            findings.count(f"{path.name} was read", path.name)
    return findings
