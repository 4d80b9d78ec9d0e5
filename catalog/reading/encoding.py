"""Recognises the encoding of text by all of its bytes, and turns it into UTF-8."""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import charset_normalizer
import numpy as np
from numpy.typing import NDArray

from catalog.errors import VitrineError
from catalog.notes import Notes

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
HEAD = 1 << 16
"""Bytes that show wide encodings, and binary content."""
NULS = 0.3
"""Share of NULs among the bytes at even or odd places that shows UTF-16."""
BINARY = 0.1
"""Share of control characters that no text has."""
VALID_PER_INVALID = 2
"""UTF-8 sequences for each invalid byte from which on text is broken UTF-8 rather than another encoding."""
RUNS = 0.5
"""Share of bytes beyond ASCII in runs of three or more that shows an alphabet other than Latin."""
OTHERS = (
    "cp1251",
    "koi8_r",
    "cp1253",
    "cp1255",
    "cp1256",
    "gb18030",
    "big5",
    "cp932",
    "euc_jp",
    "euc_kr",
)
"""Encodings of other alphabets that are tried."""
SAMPLE = 1 << 16
UNFIT = {"unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined", "utf_7"}
"""Python's codecs that are no encodings of files."""
REMEDY = "if that is wrong, set --catalog.encoding"


@dataclass(frozen=True)
class Encoding:
    name: str = "utf-8"
    """Name of a Python codec."""
    valid: bool = True
    """False where bytes are invalid in it; they become U+FFFD."""


def named_encoding(name: str) -> Encoding:
    """The encoding of a setting; VitrineError if Python does not know it."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not found._is_text_encoding or found.name.replace("-", "_") in UNFIT:
        raise VitrineError(
            f"catalog.encoding {name!r} is unknown; use auto, or a name such as utf-8, utf-16, cp1252 "
            "or latin-1."
        )
    return Encoding("utf-8-sig" if found.name == "utf-8" else found.name, valid=False)


def wide_encoding(head: bytes) -> str | None:
    """The encoding by its byte order mark, or UTF-16 and UTF-32 by their NULs; None for others."""
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    if b"\0" not in head or len(head) < 4:
        return None
    zeros = np.frombuffer(head[: len(head) // 4 * 4], np.uint8).reshape(-1, 4) == 0
    shares = zeros.mean(axis=0)
    if shares[2:].min() > 0.9 and shares[0] < NULS:
        return "utf-32-le"
    if shares[:2].min() > 0.9 and shares[3] < NULS:
        return "utf-32-be"
    first, second = shares[::2].mean(), shares[1::2].mean()
    if second > NULS and first < second / 4:
        return "utf-16-le"
    if first > NULS and second < first / 4:
        return "utf-16-be"
    return None


def is_binary(head: bytes) -> bool:
    """Whether these bytes, of no wide encoding, are no text."""
    counts = np.bincount(np.frombuffer(head, np.uint8), minlength=32)[:32]
    controls = counts.sum() - counts[[9, 10, 12, 13]].sum()
    return bool(controls > BINARY * max(1, len(head)))


def is_utf8(blocks: Iterable[bytes]) -> bool:
    """Whether all the bytes together are valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    pending = False
    try:
        for block in blocks:
            if pending or not block.isascii():
                decoder.decode(block)
                pending = bool(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@dataclass
class _Bytes:
    """Counts over bytes that are not valid UTF-8."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    sequences: int = 0
    """Valid UTF-8 sequences of two bytes or more."""
    invalid: int = 0
    in_runs: int = 0
    """Bytes beyond ASCII that stand among three or more."""
    words: list[bytes] = field(default_factory=list)
    """First words with invalid bytes."""
    sample: bytes = b""

    def add(self, block: bytes) -> None:
        if block.isascii():
            return
        array = np.frombuffer(block, np.uint8)
        high = array >= 0x80
        self.counts += np.bincount(array[high], minlength=256)
        three = high[:-2] & high[1:-1] & high[2:]
        inside = np.zeros_like(high)
        for first in range(3):
            inside[first : first + len(three)] |= three
        self.in_runs += int(np.count_nonzero(inside))
        text = block.decode("utf-8", "replace")
        invalid = text.count("\ufffd") - block.count("\ufffd".encode())
        self.invalid += invalid
        beyond = sum(len(run) for run in re.findall(r"[^\x00-\x7f]+", text))
        self.sequences += beyond - invalid
        for found in re.finditer(rb"[^\s,;|\"]*[\x80-\xff][^\s,;|\"]*", block):
            if len(self.words) >= 3:
                break
            try:
                found[0].decode()
            except UnicodeDecodeError:
                if found[0] not in self.words:
                    self.words.append(found[0])
        if len(self.sample) < SAMPLE:
            lines = [line for line in block.splitlines() if not line.isascii()]
            self.sample += b"\n".join(lines)[:SAMPLE] + b"\n"


def decide_encoding(blocks: Iterable[bytes], where: str, notes: Notes) -> Encoding:
    """The encoding of bytes that are not valid UTF-8 throughout, given in whole lines."""
    seen = _Bytes()
    for block in blocks:
        seen.add(block)
    if seen.sequences >= VALID_PER_INVALID * seen.invalid:
        notes.add(
            where,
            f"{seen.invalid} bytes are not valid UTF-8, as the other {seen.sequences} characters "
            "beyond ASCII are; they become U+FFFD",
            "empty",
            count=seen.invalid,
            examples=[word.decode("utf-8", "replace") for word in seen.words],
            remedy=REMEDY,
        )
        return Encoding("utf-8-sig", valid=False)
    beyond = int(seen.counts.sum())
    name = _other_alphabet(seen) if seen.in_runs > RUNS * beyond else None
    if name:
        why = "by the frequencies of its letters"
    elif seen.counts[0x80:0xA0].any():
        name, why = "cp1252", "it has bytes from 0x80 to 0x9f"
    else:
        name, why = "latin-1", "it has no bytes from 0x80 to 0x9f"
    notes.add(
        where,
        f"is not valid UTF-8 and read as {name} ({why})",
        examples=[word.decode(name, "replace") for word in seen.words],
        remedy=REMEDY,
    )
    return Encoding(name, valid=False)


def _other_alphabet(seen: _Bytes) -> str | None:
    found = charset_normalizer.from_bytes(seen.sample, cp_isolation=list(OTHERS)).best()
    return None if found is None else found.encoding


def utf8_blocks(
    path: Path, blocks: Iterable[bytes], encoding: Encoding, where: str, notes: Notes
) -> Iterator[bytes]:
    """The same text in UTF-8 without byte order mark; bytes invalid in `encoding` become U+FFFD."""
    if encoding.valid and encoding.name in ("utf-8", "utf-8-sig"):
        for number, block in enumerate(blocks):
            yield block.removeprefix(codecs.BOM_UTF8) if number == 0 else block
        return
    try:
        decoder = codecs.getincrementaldecoder(encoding.name)("replace")
        replaced = 0
        for block in blocks:
            text = decoder.decode(block)
            replaced += text.count("\ufffd")
            yield text.encode("utf-8", "replace")
        text = decoder.decode(b"", final=True)
        yield text.encode("utf-8", "replace")
        replaced += text.count("\ufffd")
    except (UnicodeError, LookupError) as error:
        raise VitrineError(
            f"{path} cannot be read as {encoding.name}: {error}; set --catalog.encoding"
        ) from error
    if replaced and not (
        encoding.name == "utf-8-sig" and not encoding.valid and _noted(notes, where)
    ):
        notes.add(
            where,
            f"{replaced} characters are not valid {encoding.name} and are U+FFFD",
            "empty",
            count=replaced,
            remedy=REMEDY,
        )


def _noted(notes: Notes, where: str) -> bool:
    return any(note.where == where and "not valid UTF-8" in note.what for note in notes.listed)
