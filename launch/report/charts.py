"""Draws the report's charts as inline SVG; knows values and scales, and nothing about the page."""

import math
from collections.abc import Sequence

from finetune.statistics import Interval
from launch.report.contents import Curve
from launch.report.markup import Html, decimal, tag

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44
BAR_WIDTH, BAR_HEIGHT, BAR_MARGIN = 190, 22, 8
DASHES = [None, "7 4", "2 3", "10 3 2 3", "4 2", "1 4"]
MAX_POINTS = 400


def chart_figure(title: str, unit: str, chart: Html) -> Html:
    """A chart below its title and what its vertical axis counts."""
    caption = tag("figcaption", tag("h3", title), tag("p", unit, class_="quiet"))
    return tag("figure", caption, chart, class_="chart")


def nice_ticks(low: float, high: float, num_ticks: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) that cover [low, high]."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / max(num_ticks - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """As many decimals as tell neighbouring ticks apart, the same on the whole axis."""
    places = next(
        (p for p in range(9) if all(abs(t - round(t, p)) < 1e-9 * max(1, abs(t)) for t in ticks)), 8
    )
    return decimal(value, places)


class Scale:
    """Maps values to drawing units along one axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.unit = (end - start) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) * self.unit, 1)


def line_chart(curve: Curve) -> Html:
    """A legend (unless one series) over axes and lines; points that are not finite are left out."""
    series = {name: _drawable(points) for name, points in curve.series.items()}
    points = [point for line in series.values() for point in line]
    if not points:
        return tag("p", "Nothing was logged for this curve.", class_="quiet")
    steps, values = [x for x, _ in points], [y for _, y in points]
    x_ticks, y_ticks = nice_ticks(0, max(*steps, 1), 6), nice_ticks(min(values), max(values))
    x_end = max(*steps, 1)  # the axis ends where the run does, not at the next round step
    x_ticks = [tick for tick in x_ticks if tick <= x_end]
    x = Scale(0, x_end, LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    drawing = tag(
        "svg",
        [_y_tick(tick, y_ticks, y) for tick in y_ticks],
        [_x_tick(tick, x_ticks, x) for tick in x_ticks],
        tag("text", "step", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end"),
        [_line(line, index, x, y) for index, line in enumerate(series.values())],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="lines",
        role="img",
        aria_label=_in_words(curve, series),
    )
    return Html(_legend(list(series)) + drawing)


def _drawable(points: list[list[float]]) -> list[tuple[float, float]]:
    finite = [(p[0], p[1]) for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    stride = math.ceil(len(finite) / MAX_POINTS) or 1
    return finite if stride == 1 else [*finite[:-1][::stride], finite[-1]]


def _y_tick(tick: float, ticks: list[float], y: Scale) -> Html:
    at = y(tick)
    return Html(
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid")
        + tag("text", tick_label(tick, ticks), x=LEFT - 9, y=at + 4, text_anchor="end")
    )


def _x_tick(tick: float, ticks: list[float], x: Scale) -> Html:
    at, floor = x(tick), HEIGHT - BOTTOM
    return Html(
        tag("line", x1=at, x2=at, y1=floor, y2=floor + 5, class_="tick")
        + tag("text", tick_label(tick, ticks), x=at, y=floor + 19, text_anchor="middle")
    )


def _line(points: list[tuple[float, float]], index: int, x: Scale, y: Scale) -> Html:
    look = f"series series-{index % len(DASHES)}"
    if len(points) == 1:
        return tag("circle", cx=x(points[0][0]), cy=y(points[0][1]), r=3, class_=look)
    path = " ".join(f"{x(step)},{y(value)}" for step, value in points)
    return tag("polyline", points=path, class_=look, stroke_dasharray=DASHES[index % len(DASHES)])


def _legend(names: list[str]) -> Html:
    if len(names) < 2:
        return Html("")
    entries = []
    for index, name in enumerate(names):
        look, dash = f"series series-{index % len(DASHES)}", DASHES[index % len(DASHES)]
        stroke = tag("line", x1=0, x2=26, y1=5, y2=5, class_=look, stroke_dasharray=dash)
        swatch = tag("svg", stroke, viewBox="0 0 26 10", class_="swatch", aria_hidden="true")
        entries.append(tag("li", swatch, name))
    return tag("ul", entries, class_="legend")


def _in_words(curve: Curve, series: dict[str, list[tuple[float, float]]]) -> str:
    parts = [
        f"{name}: from {line[0][1]:.4g} to {line[-1][1]:.4g}"
        for name, line in series.items()
        if line
    ]
    return f"{curve.title}, {curve.y_label} by step. " + "; ".join(parts) + "."


def interval_scale(intervals: Sequence[Interval], reference: float | None = 0.0) -> list[float]:
    """Round ticks that hold every interval and the reference value."""
    ends = [e for i in intervals for e in (i.low, i.value, i.high) if math.isfinite(e)]
    ends += [] if reference is None else [reference]
    return nice_ticks(min(ends, default=0.0), max(ends, default=1.0), 3)


def interval_axis(ticks: list[float]) -> Html:
    """Tick labels above a column of `interval_mark`s."""
    x = _interval_x(ticks)
    labels = [
        tag("text", tick_label(t, ticks), x=x(t), y=12, text_anchor=_anchor(i, len(ticks)))
        for i, t in enumerate(ticks)
    ]
    return tag("svg", labels, viewBox=f"0 0 {BAR_WIDTH} 16", class_="interval", aria_hidden="true")


def interval_mark(
    interval: Interval, ticks: list[float], look: str = "", reference: float | None = None
) -> Html:
    """A dot on its 95 % interval, drawn on the scale of `ticks`; hidden from screen readers."""
    x, middle = _interval_x(ticks), BAR_HEIGHT / 2
    marks = [tag("line", x1=x(t), x2=x(t), y1=0, y2=BAR_HEIGHT, class_="grid") for t in ticks]
    if reference is not None:
        at = x(reference)
        marks.append(tag("line", x1=at, x2=at, y1=0, y2=BAR_HEIGHT, class_="reference"))
    if math.isfinite(interval.value):
        low, high = (
            min(max(e if math.isfinite(e) else ticks[-1], ticks[0]), ticks[-1])
            for e in (interval.low, interval.high)
        )
        marks += [
            tag("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="whisker"),
            tag("line", x1=x(low), x2=x(low), y1=middle - 4, y2=middle + 4, class_="whisker"),
            tag("line", x1=x(high), x2=x(high), y1=middle - 4, y2=middle + 4, class_="whisker"),
            tag("circle", cx=x(interval.value), cy=middle, r=4.5, class_="dot"),
        ]
    box = f"0 0 {BAR_WIDTH} {BAR_HEIGHT}"
    return tag("svg", marks, viewBox=box, class_=f"interval {look}".strip(), aria_hidden="true")


def _interval_x(ticks: list[float]) -> Scale:
    return Scale(ticks[0], ticks[-1], BAR_MARGIN, BAR_WIDTH - BAR_MARGIN)


def _anchor(index: int, num_ticks: int) -> str:
    return "start" if index == 0 else "end" if index == num_ticks - 1 else "middle"


def share_bar(share: float) -> Html:
    """A bar as long as its share of the whole."""
    length = round(100 * max(0.0, min(share, 1.0)), 2)
    bar = tag("rect", x=0, y=0, width=max(length, 0.4), height=10, rx=1)
    return tag(
        "svg",
        bar,
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="share",
        aria_hidden="true",
    )
