"""Draws a distribution as inline SVG."""

from catalog.doctor.finding import Distribution
from launch.report.charts import nice_ticks
from launch.report.markup import Html, count, tag

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 76, 6, 12, 40
LABELS = 4
"""Labels of the horizontal axis at most, so that they fit a phone."""


def bar_chart(distribution: Distribution) -> Html:
    """One bar for each range, with its count as a tooltip."""
    counts = distribution.counts
    ticks = [tick for tick in nice_ticks(0, max([*counts, 1]), 4) if tick == round(tick)]
    floor, most = HEIGHT - BOTTOM, ticks[-1]
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(counts))
    every = -(-len(counts) // LABELS)
    marks = [_tick(tick, floor - tick / most * (floor - TOP)) for tick in ticks]
    for place, (label, number) in enumerate(zip(distribution.labels, counts, strict=True)):
        height = round(number / most * (floor - TOP), 1)
        left = LEFT + place * slot
        title = tag("title", f"{label}: {count(number)} {distribution.unit}")
        shape = {"x": round(left + slot * 0.08, 1), "width": round(slot * 0.84, 1)}
        marks.append(
            tag("rect", title, y=round(floor - height, 1), height=height, class_="column", **shape)
        )
        if place % every == 0:
            middle = round(left + slot / 2, 1)
            marks.append(tag("text", label, x=middle, y=floor + 22, text_anchor="middle"))
    return tag(
        "svg",
        marks,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="lines",
        role="img",
        aria_label=_in_words(distribution),
    )


def _tick(tick: float, at: float) -> Html:
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=round(at, 1), y2=round(at, 1), class_="grid")
    label = tag("text", count(tick), x=LEFT - 8, y=round(at + 4, 1), text_anchor="end")
    return Html(line + label)


def _in_words(distribution: Distribution) -> str:
    pairs = zip(distribution.labels, distribution.counts, strict=True)
    listed = "; ".join(f"{label}: {number}" for label, number in pairs)
    return f"{distribution.title}, {distribution.unit}. {listed}."
