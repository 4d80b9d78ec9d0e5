"""Text with HTML becomes the text that a browser would show."""

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.notes import Notes
from catalog.values.html import plain_text, without_html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>One<br>two</p><b>thr</b>ee", "One two three"),
        ("&amp;amp; &lt; &quot;x&quot; &#233; &#xE9;", '&amp; < "x" é é'),
        ("a&nbsp;b\u00a0 c", "a b c"),
        ("<script>alert('<p>1</p>')</script>ok<style>p{}</style>", "ok"),
        ("<SCRIPT type='x'>never closed", ""),
        ("<!-- a > <b> -->x", "x"),
        ("<scr<b>ipt>alert(1)</script>x", "alert(1)x"),
        ("the &lt;script&gt; tag &lt;!-- and more", "the tag and more"),
        ("&lt;p&gt;Hello&lt;/p&gt; &lt;script&gt;x&lt;/script&gt;", "Hello"),
        ("<a href=\"x>y\" title='<b>'>t</a>", "t"),
        ('<a href="foo>text</a>', "text"),
        ('a text that is cut <a href="https://exa', "a text that is cut"),
        ("<ul><li>red</li><li>blue</li></ul>", "red blue"),
        ("AT&T; R&D &amp; &copy=1", "AT&T; R&D & &copy=1"),
        ("a < b &amp; c > d, I <3 it", "a < b & c > d, I <3 it"),
    ],
)
def test_markup_is_removed_and_text_stays(text, expected):
    assert plain_text(text) == expected


def clean(*values, kind=None):
    notes = Notes()
    column = pa.chunked_array([pa.array(list(values), kind)])
    return without_html(column, "items: text", notes), column, notes.listed


def test_text_without_markup_is_left_alone():
    plain, column, notes = clean("a < b", "<3", "x > y", "R&D", "two\nlines  here", None)
    assert plain is column
    assert not notes


def test_only_texts_with_markup_are_changed_and_counted():
    plain, _, (note,) = clean("two\nlines", "<b>x</b>", None, "a &amp; b")
    assert plain.to_pylist() == ["two\nlines", "x", None, "a & b"]
    assert note.count == 2
    assert "2 texts hold HTML" in str(note)


def test_lists_and_dictionaries_of_texts_are_cleaned_too():
    plain, _, notes = clean(["<b>x</b>", "y"], None, [], ["&lt;"])
    assert plain.to_pylist() == [["x", "y"], None, [], ["<"]]
    assert len(notes) == 1
    plain, _, _ = clean("<i>x</i>", "y", kind=pa.dictionary(pa.int32(), pa.string()))
    assert plain.to_pylist() == ["x", "y"]
    plain, column, _ = clean([1, 2])
    assert plain is column


@pytest.mark.parametrize(
    "piece",
    ["<", "<a ", '<a"', "&", "<script>", "&lt;script&gt;", "<!--", "&lt;!--", "<b", "&lt;b"],
)
def test_no_text_takes_long(piece):
    begin = time.process_time()
    plain_text(piece * 10_000 + ">" * 10_000)
    assert time.process_time() - begin < 3


PIECES = [
    "<b>",
    "</p>",
    "<script>",
    "</script>",
    "<",
    ">",
    "&lt;",
    "&amp;",
    "lt;",
    "b>",
    "x",
    " ",
    '"',
]
PIECES += ["<!--", "-->", "<style", "<img src=", "&#60;", "'"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_tag_or_script_is_left(text):
    plain = plain_text(text)
    assert not any(tag in plain for tag in ("<b>", "</p>", "<script>", "</script>"))
