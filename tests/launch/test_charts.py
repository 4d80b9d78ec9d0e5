"""Charts of the report: curves, axes and intervals stay inside their frame."""

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from finetune.statistics import Interval
from launch.report.charts import interval_mark, line_chart, nice_ticks, tick_label
from launch.report.contents import (
    Curve,
)


@pytest.mark.parametrize(
    "points",
    [
        [[0.0, 1.0], [10.0, 0.5], [20.0, math.nan], [30.0, 0.4]],
        [[5.0, 2.0]],
        [[0.0, 3.0], [1.0, 3.0]],
        [[float(step), math.sin(step)] for step in range(5000)],
        [[0.0, 1e-7], [10.0, 3e-7]],
        [[0.0, -4.0], [1000000.0, 12345.0]],
    ],
)
def test_curves_are_drawn_inside_their_frame(points: list[list[float]]):
    chart = line_chart(Curve("title", "loss", {"one": points}))
    drawing = ElementTree.fromstring(chart)
    width, height = map(float, drawing.attrib["viewBox"].split()[2:])
    places = [
        tuple(map(float, place.split(",")))
        for line in drawing.iter("polyline")
        for place in line.attrib["points"].split()
    ]
    places += [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in drawing.iter("circle")]
    assert 1 <= len(places) <= 402
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    labels = [text.text for text in drawing.iter("text")]
    assert len(set(labels)) >= 4  # ticks that can be told apart


def test_a_curve_without_points_says_so():
    assert "Nothing was logged" in line_chart(Curve("title", "loss", {"one": []}))


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.17), (3.0, 3.0), (-0.04, 0.001), (0, 12345)])
def test_ticks_are_few_even_and_cover_the_figures(low: float, high: float):
    ticks = nice_ticks(low, high)
    steps = [round(b - a, 9) for a, b in pairwise(ticks)]
    assert len(set(steps)) == 1
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 3 <= len(ticks) <= 8
    assert len({tick_label(tick, ticks) for tick in ticks}) == len(ticks)


def test_an_infinite_interval_ends_at_the_edge_of_its_chart():
    mark = interval_mark(Interval(2.0, 1.0, math.inf), [0.0, 1.0, 2.0])
    assert not re.search(r"inf|nan", mark.replace("interval", ""))
