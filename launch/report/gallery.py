"""HTML of items and generated items: a sample of the catalog, and a section for each user."""

import base64
from collections.abc import Sequence

from launch.report.contents import Generated, GeneratedItem, ItemCard, UserStory
from launch.report.markup import Child, Html, decimal, tag

MEDIA_TYPES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}


MAX_PIXELS = 224
"""Largest side of an embedded image: twice its size on the page, for high-density screens."""


def image_media_type(data: bytes | None) -> str | None:
    """The media type of image bytes; None unless the page can embed it."""
    return next((k for start, k in MEDIA_TYPES.items() if data and data.startswith(start)), None)


def image_tag(data: bytes | None, alt: str) -> Html:
    """The image embedded in the page; a placeholder where it is missing or of an unknown type."""
    kind = image_media_type(data)
    if data is None or kind is None:
        hint = "no image"
        return tag("span", hint, class_="image missing", role="img", aria_label=f"{alt}: {hint}")
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return tag(
        "img",
        src=source,
        alt=alt,
        class_="image",
        width=MAX_PIXELS // 2,
        height=MAX_PIXELS // 2,
    )


def item_figure(item: ItemCard, mark: Html | None = None, note: Child = None) -> Html:
    """Image, title, category; `mark` lies on the image's corner, `note` under the text."""
    name = item.title or item.category or "untitled item"
    caption = [
        tag("span", item.title or "(no title)", class_="title", dir="auto"),
        tag("span", item.category, class_="category") if item.category else None,
        note,
    ]
    return tag(
        "figure",
        tag("div", image_tag(item.image, name), mark, class_="frame"),
        tag("figcaption", caption),
        class_="item",
    )


def window(items: Sequence[ItemCard]) -> Html:
    """A sample of the shop's items, below a decorative awning."""
    shelf = tag("ul", [tag("li", item_figure(item)) for item in items], class_="shelf")
    awning = tag("div", class_="awning", aria_hidden="true")
    return tag("div", awning, tag("div", shelf, class_="glass"), class_="shop-window")


def user_story(story: UserStory) -> Html:
    """One user's history, recommendations and target, then what was generated for them."""
    return tag(
        "article",
        tag("h3", "User ", tag("span", story.user, class_="user-id")),
        tag("p", story.note, class_="ground-truth", dir="auto") if story.note else None,
        _history(story),
        tag("div", _recommended(story), _bought_next(story), class_="future"),
        _generated_items(story),
        class_="user",
    )


def _history(story: UserStory) -> Html:
    if not story.history:
        strip = tag("p", "Nothing yet: this user is new to the shop.", class_="quiet")
        return tag("section", tag("h4", "Bought so far"), strip)
    strip = tag("ol", [tag("li", item_figure(item)) for item in story.history], class_="strip")
    ends = [tag("span", "oldest"), tag("span", class_="arrow"), tag("span", "newest")]
    time = tag("p", ends, class_="time", aria_hidden="true")
    heading = tag("h4", "Bought so far", tag("small", "oldest first"))
    return tag("section", heading, strip, time)


def _bought_next(story: UserStory) -> Html | None:
    if story.bought_next is None:
        return None
    heading = tag("h4", "Bought next", tag("small", "hidden from the model"))
    return tag("section", heading, item_figure(story.bought_next), class_="next")


def _recommended(story: UserStory) -> Html | None:
    if not story.recommended:
        return None
    entries = []
    for rank, item in enumerate(story.recommended, start=1):
        hit = story.bought_next is not None and _same_item(item, story.bought_next)
        notes = [
            _score(item.score),
            tag("span", "✓ bought next", class_="hit-mark") if hit else None,
        ]
        number = tag("span", tag("span", "rank ", class_="spoken"), str(rank), class_="rank")
        figure = item_figure(item, mark=number, note=notes)
        entries.append(tag("li", figure, class_="hit" if hit else None))
    heading = tag("h4", "Recommended", tag("small", "best first"))
    return tag("section", heading, tag("ol", entries, class_="strip"))


def _score(score: float | None) -> Html | None:
    if score is None:
        return None
    return tag("span", f"score {decimal(score, 3)}", class_="category")


def _same_item(one: ItemCard, other: ItemCard) -> bool:
    """Whether two cards show one item; cards carry no id, so text and image are compared."""
    return (one.title, one.category, one.image) == (other.title, other.category, other.image)


def _generated_items(story: UserStory) -> Html | None:
    if not story.generated_items:
        return None
    heading = tag("h4", "Generated for them", tag("small", "texts and images by the model"))
    return tag(
        "section", heading, [_generated_item(generated) for generated in story.generated_items]
    )


def _generated_item(generated: GeneratedItem) -> Html:
    item = generated.item
    name = item.title or item.category or "this item"
    other = tag("span", generated.swapped_with, class_="user-id")
    for_other = ["made for ", other] if generated.swapped_with else "made for another user"
    original = tag(
        "figure",
        tag("p", "in the catalog", class_="condition"),
        tag("div", image_tag(item.image, name), class_="frame"),
        tag("figcaption", tag("span", item.title or "(no title)", class_="title", dir="auto")),
        class_="item original",
    )
    return tag(
        "div",
        original,
        _generated(generated.own, "made for this user", f"{name}, made for this user", "own"),
        _generated(generated.swapped, for_other, f"{name}, made for another user", "swapped"),
        _generated(
            generated.unconditional, "unconditional", f"{name}, unconditional", "unconditional"
        ),
        class_="generated-item",
        role="group",
        aria_label=f"{name}, four ways",
    )


def _generated(
    generated: Generated, condition: str | list[Html | str], alt: str, look: str
) -> Html:
    text = tag("q", generated.text, dir="auto") if generated.text else tag("span", "no text")
    return tag(
        "figure",
        tag("p", condition, class_="condition"),
        tag("div", image_tag(generated.image, f"Generated: {alt}"), class_="frame"),
        tag("span", "generated", class_="badge"),
        tag("figcaption", text, class_="text"),
        class_=f"item {look}",
    )
