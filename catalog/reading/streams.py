"""Opens files as streams of decompressed bytes and cuts these into blocks of whole lines."""

import bz2
import csv
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import pyarrow as pa
import zstandard

from catalog.errors import VitrineError, one_line_message

BLOCK = 1 << 24
"""Bytes per block of lines."""
MAX_LINE = 1 << 30
"""Bytes of the longest record that is read."""
MAX_BYTES = 64 << 30
"""Bytes that a compressed file may hold."""
MAX_RATIO = 500
"""Bytes that one compressed byte may stand for, in files that hold more than MIN_CHECKED bytes: gzip
reaches 1,030 with zeros alone, tables seldom 50."""
MIN_CHECKED = 1 << 30
ZSTD_STEP = 1 << 12
"""Bytes given to zstandard at once: each may stand for some 30,000 bytes in memory."""

Compression = Literal["", "gz", "zst", "bz2", "xz"]
MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".xz")
"""Endings of compressed files."""
FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    UnicodeError,
    pa.ArrowException,
    csv.Error,
    RecursionError,
)
"""What other libraries raise for a broken file."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns what other libraries raise for a broken file into a VitrineError in one line."""
    try:
        yield
    except FAULTS as error:
        reason = one_line_message(error).rstrip(".")
        raise VitrineError(
            f"{path} cannot be read: {reason}; write the file again, or remove it."
        ) from error


def recognize_compression(path: Path) -> Compression:
    """The compression of a file by its first bytes, whatever its name."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bz2" or head[3:4].isdigit()):
            return name
    return ""


class _Zstandard:
    """Decompressed bytes of all frames; EOFError where the last one is cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.frame = None
        self.ready = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self.ready) < size:
            given = self.file.read(ZSTD_STEP)
            if not given:
                if self.frame is not None:
                    raise EOFError("the compressed file ends before its end-of-stream marker")
                break
            while given:
                frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
                self.ready += frame.decompress(given)
                given = frame.unused_data if frame.eof else b""
                self.frame = None if frame.eof else frame
        taken = bytes(self.ready[:size])
        del self.ready[:size]
        return taken


def _open(file: BinaryIO, compression: Compression) -> Readable:
    match compression:
        case "gz":
            return gzip.GzipFile(fileobj=file)
        case "bz2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
        case "zst":
            return _Zstandard(file)
        case _:
            return file


def byte_blocks(path: Path, compression: Compression, size: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes in blocks of `size` (BLOCK); VitrineError for a bomb or a broken file."""
    size = size or BLOCK
    total = 0
    with refusing(path), path.open("rb") as file:
        stream = _open(file, compression)
        while block := stream.read(size):
            total += len(block)
            ratio = total // max(1, file.tell())
            if compression and (total > MAX_BYTES or (total > MIN_CHECKED and ratio > MAX_RATIO)):
                raise VitrineError(
                    f"{path} holds more than {total >> 20} MiB, {ratio} times what they take on disk; at "
                    f"most {MAX_BYTES >> 30} GiB and {MAX_RATIO} times are read: unpack or split it."
                )
            yield block


def line_blocks(path: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
    r"""The same bytes in blocks that end with a line (\n, \r\n or \r), but for the last one.

    Raises VitrineError for a line of more than MAX_LINE bytes.
    """
    rest = b""
    for block in blocks:
        block = rest + block
        # A \r at the end may be the first half of \r\n.
        end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1))
        rest = block[end:]
        if len(rest) > MAX_LINE:
            raise VitrineError(
                f"{path} has a line of more than {MAX_LINE >> 20} MiB; a table has one row a line."
            )
        if end:
            yield block[:end]
    if rest:
        yield rest


def count_lines(block: bytes) -> int:
    r"""Number of line ends: \n, or \r where there is no \n."""
    return block.count(b"\n") or block.count(b"\r")
