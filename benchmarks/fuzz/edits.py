"""Edits of bytes: flips, insertions, deletions, truncations, duplicates, and lines or columns swapped."""

from collections.abc import Sequence

from hypothesis import strategies as st

TOKENS = [
    *(b'"', b"'", b",", b"\t", b";", b"|", b"::", b"\n", b"\r", b"\r\n", b"\0", b"\\", b"{", b"}"),
    *(
        b"[",
        b"]",
        b"<",
        b">",
        b"&",
        b"&#x110000;",
        b"&amp;",
        b"<!--",
        b"<![CDATA[",
        b"\xff",
        b"\xfe",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc3",
        b"\x80",
        b"\xe2\x80\xa8",
        b"\x85",
        b"\x1a",
        b"\x1b",
    ),
    *(
        b"nan",
        b"inf",
        b"-1e999",
        b"1e308",
        b"99999999999999999999",
        b"-9223372036854775809",
        b"1,5",
    ),
    *(b"0000-00-00", b"9999-12-31", b"31/12/2020", b"null", b"None", b"true", b"{}", b"[]", b'""'),
    *(b"../", b"/etc/passwd", b"file:///etc/passwd", b"http://127.0.0.1/", b"\\\\h\\s", b"C:\\x"),
    *("é".encode(), "é".encode("latin-1"), "日本".encode(), "\U0001f600".encode(), b"\xcc\x81"),
    *(b" ", b"  ", b"%", b"#", b"=", b"sep=;\n", b"A" * 300, b"(" * 60, b"[" * 400, b"9" * 400),
    *(b"item_id", b"user_id", b":token", b":float_seq", b"&a;", b'<!DOCTYPE r [<!ENTITY a "b">]>'),
]
"""What is put into files: what other programs write, and what parsers stumble over."""

Edit = tuple[int, int, int, int]


def edited(seeds: Sequence[bytes], most: int = 5) -> st.SearchStrategy[bytes]:
    """One of the seeds after up to `most` edits."""
    edit = st.tuples(
        st.integers(0, 7), st.integers(0, 65535), st.integers(0, 40), st.integers(0, 255)
    )
    return st.builds(_apply, st.sampled_from(list(seeds)), st.lists(edit, max_size=most))


def edits() -> st.SearchStrategy[list[Edit]]:
    """Up to four edits of one file."""
    edit = st.tuples(
        st.integers(0, 7), st.integers(0, 65535), st.integers(0, 40), st.integers(0, 255)
    )
    return st.lists(edit, min_size=1, max_size=4)


def _apply(data: bytes, edits: list[Edit]) -> bytes:
    for edit in edits:
        data = apply_edit(data, edit)
    return data


apply_edits = _apply


def apply_edit(data: bytes, edit: Edit) -> bytes:
    """The bytes after one edit; its place is a share of their length."""
    kind, place, length, value = edit
    at = place * (len(data) + 1) >> 16
    match kind:
        case 0:
            return data[:at] + bytes([value]) + data[at + 1 :]
        case 1 | 2:
            return data[:at] + TOKENS[value % len(TOKENS)] + data[at:]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at]
        case 5:
            return data[: at + length * 4] + data[at:]
        case 6:
            return _swapped(data, b"\n", at, value)
        case _:
            lines = data.split(b"\n")
            number = at % len(lines)
            lines[number] = _swapped(lines[number], b",\t;|"[value % 4 :][:1], place, value)
            return b"\n".join(lines)


def _swapped(data: bytes, separator: bytes, one: int, other: int) -> bytes:
    parts = data.split(separator)
    one, other = one % len(parts), other % len(parts)
    parts[one], parts[other] = parts[other], parts[one]
    return separator.join(parts)
