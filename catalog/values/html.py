"""Removes HTML from text: tags, scripts, styles, comments and entities."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import re
from html.entities import html5
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.compute as pc

from catalog.notes import Notes
from catalog.values.ids import is_text

SUSPECT = (
    r"<[!/?a-zA-Z][^>]*>|&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);|<(?:script|style)\b"
)
"""What only HTML has: a tag, a comment, or an entity. `a < b` and `<3` are none."""
TAG_START = re.compile(r"""<(?!!--|[!/?a-zA-Z](?:[^<>"']|"[^"]*"|'[^']*')*>)""")
ENTITY = re.compile(r"&(#[0-9]+;|#[xX][0-9a-fA-F]+;|[A-Za-z][A-Za-z0-9]*;)?")
BLOCK = {
    *(
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "caption",
        "center",
        "dd",
        "details",
    ),
    *(
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
    ),
    *("h3", "h4", "h5", "h6", "head", "header", "hr", "html", "img", "li", "main", "nav", "ol"),
    *("option", "p", "pre", "section", "select", "summary", "table", "tbody", "td", "tfoot", "th"),
    *("thead", "title", "tr", "ul"),
}
"""Tags that separate words."""
INLINE = {
    *(
        "a",
        "abbr",
        "acronym",
        "audio",
        "b",
        "base",
        "bdi",
        "bdo",
        "big",
        "button",
        "canvas",
        "cite",
    ),
    *("code", "del", "dfn", "em", "embed", "font", "i", "iframe", "input", "ins", "kbd", "label"),
    *("link", "map", "mark", "meta", "noscript", "object", "param", "q", "s", "samp", "script"),
    *("small", "source", "span", "strike", "strong", "style", "sub", "sup", "svg", "textarea"),
    *("time", "tt", "u", "var", "video", "wbr"),
}
HIDDEN = {"script", "style"}
PAIRS = tuple(
    (re.compile(rf"{begin}.*?{end}", re.S | re.I), re.compile(end, re.I))
    for begin, end in (
        ("<!--", "-->"),
        (r"<script\b[^>]*>", r"</script[^>]*>"),
        (r"<style\b[^>]*>", r"</style[^>]*>"),
    )
)
"""What is hidden from its begin to its end, and its end."""
NESTED = 20
"""Times that markup which lay inside other markup is removed."""
TAG_LEFT = re.compile(
    rf"</?({'|'.join(sorted(BLOCK | INLINE, key=len, reverse=True))})\b[^<>]*>|<!--", re.I
)
CUT_TAG = re.compile(
    r"<(?:/[a-z0-9]+|[a-z][a-z0-9]*\s+[a-z:-]+\s*=[^>]*|(?:script|style)\b[^>]*)$", re.I
)
"""A tag at the end of a text that was cut inside it."""


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in HIDDEN:
            self.hidden = tag
        self.parts.append(" " if tag in BLOCK else "")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.hidden:
            self.hidden = ""
        self.parts.append(" " if tag in BLOCK else "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append(" " if tag in BLOCK else "")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def plain_text(text: str) -> str:
    """The text that a browser would show, in one line; entities are resolved once."""
    text = CUT_TAG.sub(" ", text)
    last = text.rfind("-->") + 1
    text = text[:last] + text[last:].replace("<!--", " ")  # a comment that never ends
    escaped = ENTITY.sub(_escape_unknown, TAG_START.sub("&lt;", text))
    parser = _TextParser()
    try:
        parser.feed(escaped)
        parser.close()
    except AssertionError:  # `<![` and a word that no section begins with (Python 3.11)
        parser = _TextParser()
        parser.feed(escaped.replace("<![", " "))
        parser.close()
    shown = "".join(parser.parts)
    # Markup that was escaped twice, or that lay inside other tags.
    for _ in range(NESTED):
        less = TAG_LEFT.sub(_blank_for_block, _without_hidden(shown))
        if less == shown:
            break
        shown = less
    else:
        shown = shown.replace("<", " ")
    return " ".join(shown.split())


def _without_hidden(text: str) -> str:
    """The text without comments, scripts and styles that have an end."""
    for whole, end in PAIRS:
        # What begins after the last end would be searched to the end of the text each time.
        last = max((found.end() for found in end.finditer(text)), default=0)
        if last:
            text = whole.sub(" ", text[:last]) + text[last:]
    return text


def _escape_unknown(found: re.Match[str]) -> str:
    name = found[1] or ""
    return found[0] if name.startswith("#") or name in html5 else f"&amp;{name}"


def _blank_for_block(found: re.Match[str]) -> str:
    return "" if found[1] and found[1].lower() in INLINE else " "


def without_html(column: pa.ChunkedArray, where: str, notes: Notes) -> pa.ChunkedArray:
    """A text column without HTML, as large_string if some was removed; other columns unchanged."""
    if pa.types.is_dictionary(column.type):
        if not is_text(pa.chunked_array([], column.type.value_type)):
            return column
        decoded = column.cast(column.type.value_type)
        plain = without_html(decoded, where, notes)
        return column if plain is decoded else plain
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists_without_html(column, where, notes)
    if not is_text(column):
        return column
    texts = column.cast(pa.large_string())
    suspects = pc.fill_null(pc.match_substring_regex(texts, SUSPECT), False)
    if not pc.any(suspects).as_py():
        return column
    before = texts.filter(suspects).to_pylist()
    after = [plain_text(text) for text in before]
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    if not changed:
        return column
    what = f"{len(changed)} texts hold HTML, which is removed"
    notes.add(where, what, count=len(changed), examples=changed)
    mask = suspects.combine_chunks()
    return pa.chunked_array(
        [pc.replace_with_mask(texts.combine_chunks(), mask, pa.array(after, pa.large_string()))]
    )


def _lists_without_html(column: pa.ChunkedArray, where: str, notes: Notes) -> pa.ChunkedArray:
    if not is_text(pa.chunked_array([], column.type.value_type)):
        return column
    lists = column.combine_chunks()
    values = pa.chunked_array([lists.flatten()])
    plain = without_html(values, where, notes)
    if plain is values:
        return column
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64()).to_numpy()
    offsets = pa.array([0, *lengths.cumsum()], pa.int64())
    missing = pc.is_null(lists)
    return pa.chunked_array(
        [pa.LargeListArray.from_arrays(offsets, plain.combine_chunks(), mask=missing)]
    )
