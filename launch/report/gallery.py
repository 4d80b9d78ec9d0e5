"""Shows items and what was made of them: the window's strip and one story for each person."""

import base64
from collections.abc import Sequence

from launch.report.contents import Creation, ItemCard, Made, PersonStory
from launch.report.markup import Child, Html, decimal, tag

PICTURE_KINDS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}


SHOWN_PIXELS = 224
"""Of a picture's longer side: twice what the page gives it, for screens with small pixels."""


def kind_of_picture(data: bytes | None) -> str | None:
    """Its media type, if it is one that the page embeds."""
    return next((k for start, k in PICTURE_KINDS.items() if data and data.startswith(start)), None)


def picture(data: bytes | None, alt: str) -> Html:
    """The picture inside the page; a placeholder where there is none, or none that we know."""
    kind = kind_of_picture(data)
    if data is None or kind is None:
        hint = "no picture"
        return tag("span", hint, class_="picture missing", role="img", aria_label=f"{alt}: {hint}")
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return tag(
        "img",
        src=source,
        alt=alt,
        class_="picture",
        width=SHOWN_PIXELS // 2,
        height=SHOWN_PIXELS // 2,
    )


def item_figure(item: ItemCard, mark: Html | None = None, note: Child = None) -> Html:
    """Picture, title, category; `mark` lies on the picture's corner, `note` under the words."""
    name = item.title or item.category or "untitled item"
    caption = [
        tag("span", item.title or "(no title)", class_="title", dir="auto"),
        tag("span", item.category, class_="category") if item.category else None,
        note,
    ]
    return tag(
        "figure",
        tag("div", picture(item.picture, name), mark, class_="frame"),
        tag("figcaption", caption),
        class_="item",
    )


def window(items: Sequence[ItemCard]) -> Html:
    """A strip of the shop's items under an awning."""
    shelf = tag("ul", [tag("li", item_figure(item)) for item in items], class_="shelf")
    awning = tag("div", class_="awning", aria_hidden="true")
    return tag("div", awning, tag("div", shelf, class_="glass"), class_="shop-window")


def person_story(story: PersonStory) -> Html:
    """One person from left to right in time, then what was made for them."""
    return tag(
        "article",
        tag("h3", "Person ", tag("span", story.person, class_="person-id")),
        tag("p", story.note, class_="truth", dir="auto") if story.note else None,
        _history(story),
        tag("div", _recommended(story), _bought_next(story), class_="future"),
        _creations(story),
        class_="person",
    )


def _history(story: PersonStory) -> Html:
    if not story.history:
        strip = tag("p", "Nothing yet: this person is new to the shop.", class_="quiet")
        return tag("section", tag("h4", "What they took so far"), strip)
    strip = tag("ol", [tag("li", item_figure(item)) for item in story.history], class_="strip")
    ends = [tag("span", "oldest"), tag("span", class_="arrow"), tag("span", "newest")]
    time = tag("p", ends, class_="time", aria_hidden="true")
    heading = tag("h4", "What they took so far", tag("small", "oldest first"))
    return tag("section", heading, strip, time)


def _bought_next(story: PersonStory) -> Html | None:
    if story.bought_next is None:
        return None
    heading = tag("h4", "What they truly took next", tag("small", "hidden from the model"))
    return tag("section", heading, item_figure(story.bought_next), class_="next")


def _recommended(story: PersonStory) -> Html | None:
    if not story.recommended:
        return None
    entries = []
    for rank, item in enumerate(story.recommended, start=1):
        hit = story.bought_next is not None and _same_item(item, story.bought_next)
        notes = [
            _score(item.score),
            tag("span", "✓ taken next", class_="hit-mark") if hit else None,
        ]
        number = tag("span", tag("span", "rank ", class_="spoken"), str(rank), class_="rank")
        figure = item_figure(item, mark=number, note=notes)
        entries.append(tag("li", figure, class_="hit" if hit else None))
    heading = tag("h4", "What is recommended", tag("small", "best first"))
    return tag("section", heading, tag("ol", entries, class_="strip"))


def _score(score: float | None) -> Html | None:
    if score is None:
        return None
    return tag("span", f"score {decimal(score, 3)}", class_="category")


def _same_item(one: ItemCard, other: ItemCard) -> bool:
    """Cards carry no id: the same words and, where there is one, the same picture."""
    return (one.title, one.category, one.picture) == (other.title, other.category, other.picture)


def _creations(story: PersonStory) -> Html | None:
    if not story.creations:
        return None
    heading = tag("h4", "What was made for them", tag("small", "words and pictures by the model"))
    return tag("section", heading, [_creation(creation) for creation in story.creations])


def _creation(creation: Creation) -> Html:
    item = creation.item
    name = item.title or item.category or "this item"
    other = tag("span", creation.swapped_with, class_="person-id")
    for_other = ["made for ", other] if creation.swapped_with else "made for somebody else"
    original = tag(
        "figure",
        tag("p", "in the catalog", class_="reader"),
        tag("div", picture(item.picture, name), class_="frame"),
        tag("figcaption", tag("span", item.title or "(no title)", class_="title", dir="auto")),
        class_="item original",
    )
    return tag(
        "div",
        original,
        _made(creation.own, "made for this person", f"{name}, made for this person", "own"),
        _made(creation.swapped, for_other, f"{name}, made for somebody else", "swapped"),
        _made(creation.nobody, "made for nobody", f"{name}, made for nobody", "nobody"),
        class_="creation",
        role="group",
        aria_label=f"{name}, four ways",
    )


def _made(made: Made, reader: str | list[Html | str], alt: str, look: str) -> Html:
    words = tag("q", made.words, dir="auto") if made.words else tag("span", "no words")
    return tag(
        "figure",
        tag("p", reader, class_="reader"),
        tag("div", picture(made.picture, f"Generated: {alt}"), class_="frame"),
        tag("span", "generated", class_="badge"),
        tag("figcaption", words, class_="words"),
        class_=f"item {look}",
    )
