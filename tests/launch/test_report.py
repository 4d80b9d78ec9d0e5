"""The report's page: complete, self-contained, safe with untrusted text, and true to its figures."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from finetune.statistics import Interval
from launch.report.contents import (
    ArmRow,
    Claim,
    ControlRow,
    Curve,
    Generated,
    GeneratedItem,
    ItemCard,
    Report,
    RetrievalRow,
    UserStory,
)
from launch.report.markup import Html, count, decimal, duration, percent, tag
from launch.report.page import render_page
from launch.report.tables import reading

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = {"img", "meta", "br"}


def drawn(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "#2f6350").save(file, kind)
    return file.getvalue()


def small_report(word: str = "mug", image: bytes | None = None) -> Report:
    item = ItemCard(word, word, image, 0.5)
    other = ItemCard("other", "lamps", None)
    generated = Generated(image, word)
    story = UserStory(
        word,
        [item, other],
        [other, item],
        item,
        [GeneratedItem(item, generated, generated, generated, word)],
        word,
    )
    arms = [
        ArmRow(word, word, Interval(0.14213, 0.13, 0.15), {word: 0.25}, 12, 1000, 95.0),
        ArmRow("popularity", "", Interval(0.03, 0.02, 0.04), {word: math.nan}, is_control=True),
    ]
    contrast = Interval(0.5, 0.4, 0.6)
    controls = [
        ControlRow(word, contrast, contrast, None, contrast, "own / swapped", False, 1200),
    ]
    return Report(
        title=word,
        lead=word,
        facts=[(word, word)],
        window=[item],
        claims=[Claim(word, word, word, True), Claim("missed", "1", "≥ 2", False)],
        curves=[Curve(word, word, {word: [[0, 1.0], [10, 0.5]], "other": [[5, 0.7]]})],
        protocol=word,
        arms=arms,
        controls=controls,
        user_stories=[story],
        stages=[(word, 2.0), ("other", 8.0)],
        notes=[word],
        retrieval=[
            RetrievalRow(f"{word} → image", {"R@1": 0.25, "R@10": 0.5}, 0.1, None, 40, 400),
            RetrievalRow(word, {"R@1": 0.2, "R@10": 0.4}, 0.1, 0.3, 40, 400),
        ],
    )


class Reader(HTMLParser):
    """Collects tags, what they point at, and text; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_untrusted_text_is_escaped_everywhere():
    read = Reader(render_page(small_report(ATTACK, drawn())))
    assert read.text.count(ATTACK) >= 20  # it was shown, as text
    names = {name for name, _ in read.tags}
    assert "script" not in names
    handlers = [key for _, attributes in read.tags for key in attributes if key.startswith("on")]
    assert handlers == []
    assert all(a["src"] != "x" for name, a in read.tags if name == "img")


def test_the_page_needs_nothing_but_itself():
    page = render_page(small_report(image=drawn()))
    read = Reader(page)
    pointed = [a[key] or "" for _, a in read.tags for key in ("src", "href") if key in a]
    assert pointed
    assert all(p.startswith(("data:image/", "#")) for p in pointed)
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in read.tags}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_every_link_on_the_page_leads_to_a_section():
    read = Reader(render_page(small_report()))
    anchors = {a["id"] for _, a in read.tags if "id" in a}
    links = [(a["href"] or "") for name, a in read.tags if name == "a"]
    assert len(links) == 9
    assert all(link.removeprefix("#") in anchors for link in links)


def test_images_are_inside_the_page_and_described():
    images = [
        a
        for name, a in Reader(render_page(small_report("mug", drawn("JPEG")))).tags
        if name == "img"
    ]
    assert len(images) == 8
    assert all(a["alt"] for a in images)
    start, _, data = (images[0]["src"] or "").partition(",")
    assert start == "data:image/jpeg;base64"
    assert base64.b64decode(data) == drawn("JPEG")


@pytest.mark.parametrize("image", [None, b"", b"<svg onload='alert(1)'/>"])
def test_missing_or_unknown_images_become_a_placeholder(image: bytes | None):
    page = render_page(small_report(image=image))
    assert "<img" not in page
    assert "no image" in page


def test_a_report_with_nothing_in_it_is_still_a_page():
    empty = Report("Title", "", [], [], [], [], "", [], [], [])
    read = Reader(render_page(empty))
    assert "Title" in read.text
    assert "section" not in {name for name, _ in read.tags}


def test_the_gallery_comes_before_the_figures():
    page = render_page(small_report())
    order = [page.index(f'id="{anchor}"') for anchor in ("window", "users", "claims", "ranking")]
    assert order == sorted(order)


def test_whether_a_claim_is_met_is_shown_in_words():
    text = Reader(render_page(small_report())).text
    assert "1 of 2 are met" in text
    assert "✓met" in text
    assert "✗not met" in text


def cells(page: str, label: str) -> list[list[str]]:
    """The rows of the table that is called so, each cell's text."""
    table = page[page.index(f'aria-label="{label}"') :]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table[: table.index("</table>")], re.S)
    found = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows)
    return [[re.sub(r"<[^>]*>", " ", cell).strip() for cell in row] for row in found]


def test_own_swapped_and_unconditional_are_in_their_own_columns():
    own, swapped, unconditional = (Interval(value, value, value) for value in (0.7, 0.3, 0.1))
    contrast = Interval(0.4, 0.2, 0.6)
    row = ControlRow("colours", own, swapped, unconditional, contrast, "own − swapped", True, 10)
    report = small_report()
    report.controls = [row, replace(row, contrast=Interval(-0.4, -0.6, -0.2))]
    heads, first, second = cells(render_page(report), "Controls")
    assert heads[1:4] == ["own user", "another user", "unconditional"]
    assert [cell.split()[0] for cell in first[1:4]] == ["0.700", "0.300", "0.100"]
    assert first[-1] == "✓ better with one’s own state"
    assert second[-1] == "✗ worse with one’s own state"


def test_each_claim_is_marked_by_its_own_figure():
    report = small_report()
    report.claims = [Claim("first", "1", "≥ 2", False), Claim("second", "3", "≥ 2", True)]
    page = render_page(report)
    marks = re.findall(r'<li class="claim (\w+)">.*?class="sentence">(\w+)<', page, re.S)
    assert marks == [("unmet", "first"), ("met", "second")]
    assert "1 of 2 are met" in Reader(page).text


def test_ranking_figures_are_shown_as_agreed():
    text = Reader(render_page(small_report())).text
    assert "0.1421[0.1300, 0.1500]" in text
    assert "1.2\u2009%of 1\u2009000" in text
    assert "1\u2009min 35\u2009s" in text
    assert "nan" not in text


def test_a_recommended_item_that_was_bought_next_is_marked_once():
    assert Reader(render_page(small_report(image=drawn()))).text.count("✓ bought next") == 1


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "words"),
    [
        (0.1, 0.3, True, "better with one’s own state"),
        (0.1, 0.3, False, "worse with one’s own state"),
        (-0.3, -0.1, False, "better with one’s own state"),
        (-0.1, 0.3, True, "no clear difference"),
        (0.0, 0.3, True, "no clear difference"),
        (math.nan, math.nan, True, "no clear difference"),
    ],
)
def test_a_contrast_counts_only_if_its_interval_excludes_no_difference(
    low: float, high: float, higher_is_better: bool, words: str
):
    some = Interval(0.5, 0.4, 0.6)
    contrast = Interval((low + high) / 2, low, high)
    row = ControlRow("m", some, some, some, contrast, "own − swapped", higher_is_better, 10)
    assert reading(row, 0.0)[2] == words


def test_text_is_escaped_unless_it_is_html():
    assert tag("p", "1 < 2", Html("<b>x</b>")) == "<p>1 &lt; 2<b>x</b></p>"
    assert tag("p", class_='a"b', hidden=None) == '<p class="a&quot;b"></p>'
    tag("p", "\ud800").encode("utf-8")


def test_numbers_are_written_for_readers():
    assert count(1234567) == "1\u2009234\u2009567"
    assert decimal(-0.05, 2) == "−0.05"
    assert decimal(math.nan) == "–"
    assert decimal(math.inf) == "∞"
    assert [percent(share) for share in (0, 0.004, 0.0123, 0.63, 1)] == [
        "0\u2009%",
        "0.40\u2009%",
        "1.2\u2009%",
        "63\u2009%",
        "100\u2009%",
    ]
    assert [duration(s) for s in (4.21, 59.7, 95, 5000)] == [
        "4.2\u2009s",
        "1\u2009min 0\u2009s",
        "1\u2009min 35\u2009s",
        "1\u2009h 23\u2009min",
    ]
