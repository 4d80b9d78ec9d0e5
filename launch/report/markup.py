"""Writes text and numbers as HTML: escaped unless already HTML, so that no caller can forget it."""

import math
from collections.abc import Iterable
from html import escape

from finetune.statistics import Interval

THIN_SPACE = "\u2009"
MISSING = "–"
VOID_ELEMENTS = {"img", "meta", "br"}


class Html(str):
    """Text that is HTML already; any other text is escaped where it meets a tag."""


Child = str | None | Iterable["Child"]


def html(child: Child) -> Html:
    """Escapes plain text, keeps `Html`, joins sequences, drops None."""
    if child is None:
        return Html("")
    if isinstance(child, Html):
        return child
    if isinstance(child, str):  # lone surrogates can't be written as UTF-8
        return Html(escape(child.encode("utf-8", "replace").decode("utf-8")))
    return Html("".join(html(part) for part in child))


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """`tag("p", "1 < 2", class_="x")` is `<p class="x">1 &lt; 2</p>`; None drops an attribute."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID_ELEMENTS:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{html(children)}</{name}>")


def count(number: float) -> str:
    """1234567 → 1 234 567, with thin spaces."""
    return f"{number:,.0f}".replace(",", THIN_SPACE)


def decimal(value: float, places: int = 4) -> str:
    """A figure with a true minus sign; a dash where there is none."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:,.{places}f}".replace(",", THIN_SPACE).replace("-", "−")


def percent(share: float) -> str:
    """0.0123 → 1.2 %; whole percents from ten on."""
    if not math.isfinite(share):
        return MISSING
    places = 0 if share >= 0.0995 or share == 0 else 1 if share >= 0.00995 else 2
    return f"{decimal(100 * share, places)}{THIN_SPACE}%"


def duration(seconds: float) -> str:
    """4.21 → 4.2 s; 95 → 1 min 35 s; 5000 → 1 h 23 min."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{THIN_SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{THIN_SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{THIN_SPACE}min {whole % 60}{THIN_SPACE}s"
    return f"{whole // 3600}{THIN_SPACE}h {whole % 3600 // 60}{THIN_SPACE}min"


def bounds(interval: Interval, places: int = 4) -> str:
    """The 95 % interval alone: `[0.0812, 0.0934]`."""
    if math.isnan(interval.low) and math.isnan(interval.high):
        return ""
    return f"[{decimal(interval.low, places)}, {decimal(interval.high, places)}]"
