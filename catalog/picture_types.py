"""Recognizes pictures by their first bytes, whatever their name or a server says they are."""

SIGNATURES = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}
"""First bytes of a picture → suffix of its file."""
PICTURE_SUFFIXES = {*SIGNATURES.values(), "webp", "avif"}
OTHERS = {
    b"<svg": "SVG, which is not read",
    b"<!doctype html": "a page of HTML instead of a picture",
    b"<html": "a page of HTML instead of a picture",
    b"<head": "a page of HTML instead of a picture",
    b"%pdf": "a PDF instead of a picture",
    b"{": "a text instead of a picture",
}
"""First letters of what servers send instead of pictures, in lower case → its name."""


def picture_suffix(content: bytes) -> str | None:
    """The suffix of a picture's file by its first bytes; None where they are no known picture's."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return next((suffix for start, suffix in SIGNATURES.items() if content.startswith(start)), None)


def name_content(content: bytes) -> str:
    """What bytes are that are no picture, in a few words."""
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not content:
        return "an empty file"
    if start.startswith((b"<?xml", b"<!--", b"<!doctype svg")):
        return OTHERS[b"<svg"] if b"<svg" in start else "XML instead of a picture"
    return next(
        (name for mark, name in OTHERS.items() if start.startswith(mark)), "no known picture"
    )
