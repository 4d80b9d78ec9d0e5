"""Copies of catalogs as plain rows, and faults that are planted in their items and interactions.

Nothing here uses the code that finds the faults.
"""

import html
import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
YEAR = 365 * 86_400


@dataclass
class Copy:
    """A catalog as rows: items have item_id, title, description, category, price, image (a path);
    interactions have user_id, item_id, time, split, review."""

    name: str
    items: list[Row]
    rows: list[Row]
    dated: bool
    """Whether times are dates in seconds, not positions."""
    now: int
    folder: Path = Path()
    """Where images that are planted are written."""
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further columns of the items: name → item id → value."""

    def by_id(self) -> dict[str, Row]:
        return {item["item_id"]: item for item in self.items}

    def histories(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: row["time"]):
            found.setdefault(row["user_id"], []).append(row)
        return found


Planter = Callable[[Copy, np.random.Generator, int], set[str]]
"""Plants about so many faults, and returns the ids that are affected; none where it is not applicable."""
Judge = Callable[[Copy, set[str]], set[str]]
"""Of the ids that were found, those that a rule of its own confirms, planted or not."""


@dataclass(frozen=True)
class Fault:
    plant: Planter
    judge: Judge | None = None
    """None: what was found in the unplanted catalog already is left out of the precision."""
    unit: str = "items"
    pictures: bool = False


def text_of(item: Row) -> str:
    return ". ".join(part for part in (item["title"], item["description"]) if part)


def key_of(row: Row) -> str:
    return f"{row['user_id']}|{row['item_id']}"


def draw(copy: Copy, rng: np.random.Generator, count: int, need: Callable[[Row], Any]) -> list[Row]:
    """At most `count` items, and a quarter of all, for which `need` is true."""
    able = [item for item in copy.items if need(item)]
    count = min(count, len(able) // 4)
    return [able[place] for place in rng.permutation(len(able))[:count]]


def rewriting(change: Callable[[Copy, Row, np.random.Generator, int], None]) -> Planter:
    """A planter that changes each of the items drawn."""

    def plant(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
        chosen = draw(copy, rng, count, text_of)
        for number, item in enumerate(chosen):
            change(copy, item, rng, number)
        return {item["item_id"] for item in chosen}

    return plant


def appending(texts: list[str] | Callable[[np.random.Generator], str]) -> Planter:
    """A planter that appends one of the texts to title or description."""

    def change(copy: Copy, item: Row, rng: np.random.Generator, number: int) -> None:
        text = texts[number % len(texts)] if isinstance(texts, list) else texts(rng)
        place = "description" if item["description"] and rng.random() < 0.7 else "title"
        item[place] = f"{item[place] or ''} {text}".strip()

    return rewriting(change)


def judged(rule: Callable[[Copy, Row], bool]) -> Judge:
    """A judge that looks at each item alone."""

    def judge(copy: Copy, found: set[str]) -> set[str]:
        items = copy.by_id()
        return {one for one in found if one in items and rule(copy, items[one])}

    return judge


def copying(column: str) -> Planter:
    def plant(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
        chosen = draw(copy, rng, count, lambda item: item[column])
        pairs = list(zip(chosen[::2], chosen[1::2], strict=False))
        for one, other in pairs:
            other[column] = one[column]
        return {item["item_id"] for pair in pairs for item in pair}

    return plant


def shared(value: Callable[[Row], Any], least: int = 2) -> Judge:
    """Confirms items whose value at least `least` items have."""

    def judge(copy: Copy, found: set[str]) -> set[str]:
        counts = Counter(value(item) for item in copy.items if value(item))
        items = copy.by_id()
        return {one for one in found if one in items and counts[value(items[one])] >= least}

    return judge


def near_copies(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    """Gives items the text of another in which a few words are other ones."""
    chosen = draw(copy, rng, count, lambda item: len(text_of(item).split()) >= 10)
    vocabulary = [word for item in copy.items for word in text_of(item).split()]
    affected = set()
    for one, other in zip(chosen[::2], chosen[1::2], strict=False):
        words = text_of(one).split()
        for _ in range(max(1, len(words) // 20)):
            words[rng.integers(len(words))] = f"{rng.choice(vocabulary)}ly"
        other["title"], other["description"] = " ".join(words), None
        affected |= {one["item_id"], other["item_id"]}
    return affected


def near_texts(copy: Copy, found: set[str]) -> set[str]:
    """Confirms items that share three quarters of their words, counted with repeats (Dice), with a text that
    differs."""
    texts = {item["item_id"]: text_of(item).lower() for item in copy.items}
    bags = {one: Counter(re.findall(r"\w+", text)) for one, text in texts.items()}

    def near(one: str, other: str) -> bool:
        both = (bags[one] & bags[other]).total()
        sizes = bags[one].total() + bags[other].total()
        return texts[one] != texts[other] and 2 * both >= 0.75 * sizes

    return {one for one in found if any(near(one, other) for other in texts if other != one)}


def emptied(copy: Copy, item: Row, rng: np.random.Generator, number: int) -> None:
    item["title"] = item["description"] = None


def shortened(copy: Copy, item: Row, rng: np.random.Generator, number: int) -> None:
    item["title"], item["description"] = ["ab", "X1", "--!", "q"][number % 4], None


PLACEHOLDERS = [
    *("N/A", "null", "TODO", "untitled", "TBD", "no description available", "None", "n/a"),
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
]


def held_place(copy: Copy, item: Row, rng: np.random.Generator, number: int) -> None:
    item["title" if number % 2 else "description"] = PLACEHOLDERS[number % len(PLACEHOLDERS)]


def is_placeholder(copy: Copy, item: Row) -> bool:
    plain = {one.lower() for one in PLACEHOLDERS}
    fields = [(item[name] or "").lower().strip(" .-[]'\"") for name in ("title", "description")]
    return any(one in plain or "lorem ipsum" in one for one in fields)


def misread(word: str) -> str:
    return word.encode("utf8").decode("cp1252")


MISREAD = [
    misread(word) for word in ("café", "über", "señora", "it’s", "5 €", "naïve – yes", "crème")
]


def is_misread(copy: Copy, item: Row) -> bool:
    for word in text_of(item).split():
        try:
            if word.encode("cp1252").decode("utf8") != word:
                return True
        except UnicodeError:
            continue
    return "\ufffd" in text_of(item)


def has_html(copy: Copy, item: Row) -> bool:
    text = html.unescape(text_of(item))  # what the reader resolves
    return html.unescape(text) != text or bool(re.search(r"</?[a-z][^>]*>|\{[^}]*:[^}]*\}", text))


def boilerplate(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = draw(copy, rng, max(count, len(copy.items) // 12), text_of)
    for item in chosen:
        item["description"] = f"{text_of(item)}. Free shipping on all orders over fifty euros."
        item["title"] = None
    return {item["item_id"] for item in chosen}


def repeats_sentence(copy: Copy, found: set[str]) -> set[str]:
    split = {
        item["item_id"]: {one.strip().lower() for one in re.split(r"[.!?\n]", text_of(item))}
        for item in copy.items
    }
    counts = Counter(one for ones in split.values() for one in ones if len(one.split()) >= 5)
    least = 0.05 * sum(bool(text_of(item)) for item in copy.items)
    return {one for one in found if any(counts[part] >= least for part in split[one])}


def other_ids(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    ids = [item["item_id"] for item in copy.items if len(item["item_id"]) >= 4]
    chosen = draw(copy, rng, count if ids else 0, text_of)
    for item in chosen:
        other = next(one for one in rng.permutation(ids).tolist() if one != item["item_id"])
        words = "see also" if len(other) >= 6 else "see item"
        item["title"] = f"{item['title'] or ''} {words} {other}".strip()
    return {item["item_id"] for item in chosen}


def names_id(copy: Copy, item: Row) -> bool:
    ids = {one["item_id"] for one in copy.items if len(one["item_id"]) >= 6}
    return bool((set(re.findall(r"[\w-]+", text_of(item))) & ids) - {item["item_id"]})


def luhn_number(rng: np.random.Generator) -> str:
    digits = [4, *rng.integers(10, size=14).tolist()]
    total = sum(sum(divmod(2 * d, 10)) if place % 2 == 0 else d for place, d in enumerate(digits))
    number = "".join(map(str, [*digits, -total % 10]))
    return " ".join(number[start : start + 4] for start in range(0, 16, 4))


def iban(rng: np.random.Generator) -> str:
    account = "".join(map(str, rng.integers(10, size=18)))
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"


def payment(rng: np.random.Generator) -> str:
    return f"pay to {iban(rng) if rng.random() < 0.5 else luhn_number(rng)}"


def mail(rng: np.random.Generator) -> str:
    return (
        f"write to {''.join(rng.choice(list('abcdefg'), 6))}.x@mail{rng.integers(99)}.example.org"
    )


def address(rng: np.random.Generator) -> str:
    return f"from {'.'.join(str(rng.integers(11, 255)) for _ in range(4))}"


PHONES = [
    *("+49 30 1234567", "+1 (555) 123-4567", "(555) 123-4567", "555-123-4567"),
    *("+33 1 23 45 67 89", "+44 20 7946 0958", "+4917012345678"),
]


def has_address(copy: Copy, item: Row) -> bool:
    for word in re.findall(r"[\d.]+", text_of(item)):
        try:
            ipaddress.IPv4Address(word.strip("."))
        except ValueError:
            continue
        return True
    return False


def foreign(copy: Copy, item: Row, rng: np.random.Generator, number: int) -> None:
    letters = [chr(place) for place in range(0x10D0, 0x10F0)]  # Georgian
    words = ["".join(rng.choice(letters, 6)) for _ in range(8)]
    item["title"], item["description"] = " ".join(words), None


def marked(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = {item["item_id"] for item in draw(copy, rng, count, lambda item: True)}
    copy.extra["text_suspect"] = dict.fromkeys(chosen, "yes")
    return chosen


def priced(value: Callable[[float, int], float]) -> Planter:
    def plant(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
        chosen = draw(copy, rng, count, lambda item: item["price"])
        for number, item in enumerate(chosen):
            item["price"] = value(item["price"], number)
        return {item["item_id"] for item in chosen}

    return plant


ITEM_FAULTS: dict[str, Fault] = {
    "duplicate-titles": Fault(copying("title"), shared(lambda item: item["title"])),
    "duplicate-texts": Fault(copying("description"), shared(lambda item: item["description"])),
    "near-duplicate-texts": Fault(near_copies, near_texts),
    "empty-texts": Fault(rewriting(emptied), judged(lambda copy, item: not text_of(item))),
    "short-texts": Fault(
        rewriting(shortened), judged(lambda copy, item: len(re.findall(r"\w", text_of(item))) < 4)
    ),
    "html-in-texts": Fault(
        appending(
            [
                "&amp;nbsp; now",
                "&amp;lt;b&amp;gt;New&amp;lt;/b&amp;gt;",
                "Tom &amp;amp; Co",
                "1 &amp;#8211; 2",
            ]
        ),
        judged(has_html),
    ),
    "mojibake": Fault(appending(MISREAD), judged(is_misread)),
    "placeholder-texts": Fault(rewriting(held_place), judged(is_placeholder)),
    "boilerplate-texts": Fault(boilerplate, repeats_sentence),
    "unknown-tokens": Fault(rewriting(foreign)),
    "mixed-scripts": Fault(rewriting(foreign)),
    "ids-in-texts": Fault(other_ids, judged(names_id)),
    "e-mail-addresses": Fault(
        appending(mail), judged(lambda copy, item: bool(re.search(r"\S@\S+\.\S", text_of(item))))
    ),
    "phone-numbers": Fault(appending([f"call {one}" for one in PHONES])),
    "payment-numbers": Fault(appending(payment)),
    "ip-addresses": Fault(appending(address), judged(has_address)),
    "suspect-rows": Fault(marked),
    "nonpositive-prices": Fault(
        priced(lambda price, number: 0.0 if number % 2 else -price),
        judged(lambda copy, item: item["price"] <= 0),
    ),
    "price-outliers": Fault(
        priced(lambda price, number: price * 1000 if number % 2 else price / 1000)
    ),
}
