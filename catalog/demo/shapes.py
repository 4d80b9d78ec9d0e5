"""Outlines of simple figures as point lists, computed with arithmetic that is exact on every machine.

Coordinates are in a product's own box, 0 … 100 to the right and down. Circles and rotations use rational
points of the unit circle, curves use corner cutting; no trigonometric function is called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

Point = tuple[float, float]
Tone = Literal["main", "accent", "deep", "light", "glint", "flame", "hole"]


@dataclass(frozen=True)
class Part:
    """One figure of a product; later parts cover earlier ones."""

    tone: Tone
    """The palette's tone; `hole` shows the background."""
    points: Sequence[Point]
    patterned: bool = False
    """Whether it carries the motif."""


def _circle(steps: int) -> list[Point]:
    """Points of the unit circle, a quarter at a time: ((1 - t²) / (1 + t²), 2t / (1 + t²))."""
    quarter = []
    for step in range(steps):
        t = step / steps
        quarter.append(((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)))
    turns = [quarter]
    for _ in range(3):
        turns.append([(-y, x) for x, y in turns[-1]])
    return [point for turn in turns for point in turn]


CIRCLE = _circle(10)


def ellipse(x: float, y: float, wide: float, high: float) -> list[Point]:
    """An ellipse by its centre and two radii."""
    return [(x + wide * a, y + high * b) for a, b in CIRCLE]


def rectangle(
    left: float, top: float, right: float, bottom: float, round_by: float = 0
) -> list[Point]:
    if not round_by:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    points = []
    for a, b in CIRCLE:
        x = right - round_by if a > 0 or (a == 0 and b < 0) else left + round_by
        y = bottom - round_by if b > 0 or (b == 0 and a > 0) else top + round_by
        points.append((x + round_by * a, y + round_by * b))
    return points


def smooth(*points: Point, times: int = 3) -> list[Point]:
    """A closed outline smoothed by repeated corner cutting (Chaikin, 1974)."""
    outline = list(points)
    for _ in range(times):
        cut = []
        for (x, y), (u, v) in zip(outline, outline[1:] + outline[:1], strict=True):
            cut += [((3 * x + u) / 4, (3 * y + v) / 4), ((x + 3 * u) / 4, (y + 3 * v) / 4)]
        outline = cut
    return outline


def line(start: Point, end: Point, width: float) -> list[Point]:
    (x, y), (u, v) = start, end
    length = sqrt((u - x) ** 2 + (v - y) ** 2)
    a, b = (v - y) * width / (2 * length), (x - u) * width / (2 * length)
    return [(x + a, y + b), (u + a, v + b), (u - a, v - b), (x - a, y - b)]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The points mirrored left to right, so that a pair or a sleeve is defined once."""
    return [(100 - x, y) for x, y in points]


def leaf(foot: Point, tip: Point, width: float) -> list[Point]:
    """A slender leaf from its foot to its tip."""
    (x, y), (u, v) = foot, tip
    a, b = (v - y) * width / 100, (x - u) * width / 100
    middle = ((x + u) / 2, (y + v) / 2)
    return smooth(
        foot, (middle[0] + a, middle[1] + b), tip, tip, (middle[0] - a, middle[1] - b), foot
    )
