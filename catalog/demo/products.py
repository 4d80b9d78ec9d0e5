"""The shapes of every kind of product: its parts, from back to front."""

from catalog.demo.shapes import Part, Point, ellipse, leaf, line, mirrored, rectangle, smooth

HANGING = {"clock", "mirror"}
"""Products of the home that hang on the wall instead of standing on the floor."""


def parts_of(category: str) -> list[Part]:
    """The parts of a product in a box of 100 by 100."""
    return PRODUCTS[category]


def _both(tone: str, points: list[Point], patterned: bool = False) -> list[Part]:
    """A part and its mirror image."""
    return [Part(tone, side, patterned) for side in (points, mirrored(points))]  # type: ignore[arg-type]


LAMP = [
    Part("accent", rectangle(46, 48, 54, 90)),
    Part("accent", ellipse(50, 93, 24, 7)),
    Part("main", [(34, 4), (66, 4), (90, 54), (10, 54)], True),
    Part("deep", [(11, 51), (89, 51), (91, 56), (9, 56)]),
    Part("deep", rectangle(33, 2, 67, 6)),
]
VASE = [
    Part("deep", line((50, 40), (42, 0), 2.5)),
    Part("deep", line((50, 40), (64, 8), 2.5)),
    Part("accent", leaf((46, 20), (20, 14), 46)),
    Part("accent", leaf((44, 10), (64, -8), 46)),
    Part("accent", leaf((58, 22), (86, 18), 46)),
    Part("accent", leaf((63, 12), (74, -12), 46)),
    Part("accent", leaf((43, 6), (26, -16), 46)),
    Part(
        "main",
        smooth(
            *((39, 32), (61, 32), (60, 44), (88, 62), (76, 100), (64, 100)),
            *((36, 100), (24, 100), (12, 62), (40, 44)),
        ),
        True,
    ),
    Part("deep", ellipse(50, 34, 12, 3.5)),
]
CHAIR = [
    Part("accent", line((30, 55), (22, 100), 5)),
    Part("accent", line((70, 55), (78, 100), 5)),
    Part("accent", line((42, 60), (40, 93), 4)),
    Part("accent", line((58, 60), (60, 93), 4)),
    Part("deep", rectangle(33, 36, 39, 60)),
    Part("deep", rectangle(61, 36, 67, 60)),
    Part("main", rectangle(22, 2, 78, 44, 12), True),
    Part("deep", rectangle(15, 59, 85, 70, 5)),
    Part("main", rectangle(15, 54, 85, 66, 6)),
]
RUG = [
    *(Part("accent", line((24 + 4 * k, 49), (23.5 + 4.08 * k, 43), 1.6)) for k in range(14)),
    *(Part("accent", line((2 + 7.4 * k, 96), (1 + 7.5 * k, 103), 2.2)) for k in range(14)),
    Part("deep", [(22, 48), (78, 48), (101, 97), (-1, 97)]),
    Part("main", [(25, 51), (75, 51), (94, 93), (6, 93)], True),
]
CUSHION = [
    Part(
        "deep",
        smooth((2, 8), (50, 20), (98, 8), (88, 52), (98, 96), (50, 86), (2, 96), (12, 52), times=2),
    ),
    Part(
        "main",
        smooth(
            (7, 14), (50, 23), (93, 14), (84, 52), (93, 90), (50, 82), (7, 90), (16, 52), times=2
        ),
        True,
    ),
]
MUG = [
    Part("deep", ellipse(76, 54, 21, 23)),
    Part("hole", ellipse(76, 54, 12, 14)),
    Part(
        "main",
        [
            *rectangle(12, 20, 76, 97, 10)[10:30],
            (12, 18),
            (76, 18),
            *rectangle(12, 20, 76, 97, 10)[:10],
        ],
        True,
    ),
    Part("deep", ellipse(44, 18, 32, 6)),
    Part("accent", ellipse(44, 19, 27, 4)),
]
CLOCK = [
    Part("deep", ellipse(50, 50, 50, 50)),
    Part("main", ellipse(50, 50, 47, 47), True),
    Part("light", ellipse(50, 50, 31, 31)),
    *(
        Part("accent", ellipse(50 + x, 50 + y, 2.2, 2.2))
        for x, y in ((0, 25), (25, 0), (0, -25), (-25, 0))
    ),
    Part("accent", line((50, 52), (50, 29), 3.6)),
    Part("accent", line((49, 50), (65, 59), 3.6)),
    Part("main", ellipse(50, 50, 4.5, 4.5)),
]
MIRROR = [
    Part("deep", smooth((10, 0), (90, 0), (90, 50), (90, 100), (10, 100), (10, 50))),
    Part("main", smooth((12, 2), (88, 2), (88, 50), (88, 98), (12, 98), (12, 50)), True),
    Part("deep", smooth((25, 17), (75, 17), (75, 50), (75, 84), (25, 84), (25, 50))),
    Part("light", smooth((27, 19), (73, 19), (73, 50), (73, 82), (27, 82), (27, 50))),
    Part("glint", [(52, 26), (60, 29), (39, 66), (34, 60)]),
    Part("glint", [(63, 34), (66, 37), (46, 71), (43, 69)]),
]
TEAPOT = [
    Part("deep", ellipse(83, 58, 17, 21)),
    Part("hole", ellipse(83, 58, 10, 14)),
    Part(
        "deep",
        smooth(
            (30, 62), (14, 60), (10, 34), (-6, 30), (2, 24), (22, 28), (28, 48), (36, 50), times=2
        ),
    ),
    Part("main", smooth((26, 32), (74, 32), (96, 66), (74, 98), (26, 98), (4, 66)), True),
    Part("deep", rectangle(34, 92, 66, 97, 2)),
    Part("accent", smooth((26, 36), (32, 24), (68, 24), (74, 36), times=2)),
    Part("accent", ellipse(50, 20, 6, 6)),
]
CANDLE = [
    Part("flame", smooth((50, -6), (58, 10), (56, 20), (44, 20), (42, 10))),
    Part("accent", line((50, 12), (50, 28), 2.4)),
    Part("main", rectangle(30, 26, 70, 90), True),
    Part("deep", ellipse(50, 26, 20, 4.5)),
    Part("accent", smooth((8, 84), (92, 84), (80, 100), (20, 100), times=2)),
]
BASKET = [
    Part("accent", ellipse(50, 40, 35, 40)),
    Part("hole", ellipse(50, 40, 29, 34)),
    Part("main", smooth((3, 40), (3, 40), (97, 40), (97, 40), (84, 99), (16, 99), times=2), True),
    Part("deep", rectangle(3, 38, 97, 50, 5)),
]
PLANTER = [
    Part("accent", leaf((50, 60), (50, -8), 34)),
    Part("accent", leaf((48, 60), (20, 4), 34)),
    Part("accent", leaf((52, 60), (80, 4), 34)),
    Part("deep", leaf((46, 60), (2, 26), 34)),
    Part("deep", leaf((54, 60), (98, 26), 34)),
    Part("main", [(22, 56), (78, 56), (70, 100), (30, 100)], True),
    Part("deep", rectangle(18, 52, 82, 62, 3)),
]
DRESS = [
    *_both("deep", line((38, 2), (36, 14), 5)),
    Part(
        "main",
        [
            (31, 12),
            (40, 12),
            (45, 20),
            (55, 20),
            (60, 12),
            (69, 12),
            (65, 44),
            (92, 94),
            (70, 98),
            (50, 99),
            (30, 98),
            (8, 94),
            (35, 44),
        ],
        True,
    ),
    Part("accent", [(35, 42), (65, 42), (67, 49), (33, 49)]),
    Part("deep", line((42, 52), (34, 94), 1.6)),
    Part("deep", line((58, 52), (66, 94), 1.6)),
]
SLEEVE: list[Point] = [(28, 10), (18, 14), (2, 50), (20, 58), (34, 34)]
SHIRT = [
    *_both("deep", SLEEVE),
    *_both("main", [(28, 10), (18, 14), (4, 47), (19, 54), (32, 32)], True),
    Part("main", [(30, 8), (70, 8), (76, 30), (77, 96), (23, 96), (24, 30)], True),
    Part("deep", line((50, 14), (50, 96), 2.2)),
    *(Part("light", ellipse(50, y, 2.6, 2.6)) for y in (34, 52, 70, 88)),
    *_both("accent", [(36, 5), (50, 14), (40, 24), (30, 9)]),
]
BAG = [
    Part("accent", smooth((26, 48), (28, 0), (72, 0), (74, 48), times=3)),
    Part("hole", smooth((33, 48), (34, 8), (66, 8), (67, 48), times=3)),
    Part(
        "main",
        smooth(
            (10, 36), (10, 36), (90, 36), (90, 36), (98, 98), (98, 98), (2, 98), (2, 98), times=2
        ),
        True,
    ),
    Part("deep", smooth((9, 36), (9, 36), (91, 36), (91, 36), (74, 62), (26, 62), times=2)),
    Part("light", ellipse(50, 60, 5, 5)),
    Part("accent", ellipse(50, 60, 3, 3)),
]
BOOT = smooth(
    *((8, 6), (8, 6), (38, 6), (38, 6), (37, 52), (40, 62), (62, 70), (66, 92), (62, 92)),
    *((10, 92), (10, 92), (12, 60)),
    times=2,
)
BOOTS = [
    Part("deep", [(x + 36, y - 4) for x, y in BOOT], True),
    Part("accent", rectangle(46, 84, 101, 91, 2)),
    Part("main", BOOT, True),
    Part("accent", rectangle(8, 89, 66, 97, 2)),
    Part("accent", rectangle(8, 97, 24, 101)),
    Part("deep", rectangle(7, 6, 39, 14, 2)),
    Part("deep", rectangle(42, 3, 75, 10, 2)),
]
HAT = [
    Part("deep", ellipse(50, 76, 50, 15)),
    Part("main", ellipse(50, 73, 49, 13)),
    Part(
        "main",
        smooth(
            (22, 76),
            (22, 76),
            (24, 26),
            (40, 14),
            (50, 22),
            (60, 14),
            (76, 26),
            (78, 76),
            (78, 76),
            (50, 84),
            times=2,
        ),
        True,
    ),
    Part(
        "accent",
        smooth(
            (22, 60),
            (22, 60),
            (50, 70),
            (78, 60),
            (78, 60),
            (79, 74),
            (79, 74),
            (50, 84),
            (21, 74),
            (21, 74),
            times=2,
        ),
    ),
]
SCARF = [
    *(Part("accent", line((27 + 4.4 * k, 88), (27 + 4.4 * k, 97), 2)) for k in range(6)),
    *(Part("accent", line((56 + 4.2 * k, 70), (58 + 4.2 * k, 79), 2)) for k in range(6)),
    Part("deep", [(50, 24), (70, 22), (81, 70), (54, 74)], True),
    Part("main", [(30, 26), (54, 28), (51, 90), (25, 88)], True),
    Part("main", smooth((14, 16), (50, 0), (86, 16), (80, 40), (50, 46), (20, 40)), True),
    Part("deep", smooth((30, 16), (50, 9), (70, 16), (50, 25))),
]
COAT = [
    *_both("deep", [(30, 6), (16, 14), (6, 66), (21, 70), (34, 30)]),
    *_both("main", [(30, 8), (18, 15), (9, 63), (19, 66), (32, 28)], True),
    Part("main", [(30, 6), (70, 6), (76, 30), (82, 100), (18, 100), (24, 30)], True),
    Part("deep", line((54, 40), (55, 100), 2.2)),
    *_both("accent", [(38, 2), (54, 40), (44, 32), (26, 18), (30, 5)]),
    *(Part("light", ellipse(47, y, 2.6, 2.6)) for y in (48, 62, 76)),
    *_both("deep", rectangle(25, 66, 39, 70, 1)),
]
SKIRT = [
    Part("main", [(32, 10), (68, 10), (98, 88), (80, 94), (50, 96), (20, 94), (2, 88)], True),
    Part("deep", line((42, 16), (28, 94), 1.8)),
    Part("deep", line((50, 16), (50, 96), 1.8)),
    Part("deep", line((58, 16), (72, 94), 1.8)),
    Part("accent", rectangle(30, 6, 70, 17, 2)),
]
TROUSERS = [
    Part("main", [(26, 4), (74, 4), (84, 98), (58, 100), (50, 38), (42, 100), (16, 98)], True),
    Part("deep", line((50, 12), (50, 40), 2)),
    *_both("deep", line((27, 16), (36, 24), 2)),
    Part("accent", [(26, 2), (74, 2), (75, 12), (25, 12)]),
    Part("deep", [(16.5, 92), (42.8, 94), (42, 100), (16, 98)]),
    Part("deep", [(83.5, 92), (57.2, 94), (58, 100), (84, 98)]),
]
SOCK = smooth(
    *((12, 8), (12, 8), (40, 8), (40, 8), (39, 50), (44, 64), (66, 76), (66, 96), (44, 94)),
    *((20, 84), (10, 72), (13, 50)),
    times=2,
)
SOCKS = [
    Part("deep", [(x + 33, y - 6) for x, y in SOCK], True),
    Part("accent", rectangle(44, 0, 75, 13, 3)),
    Part("main", SOCK, True),
    Part("accent", smooth((50, 68), (68, 74), (70, 98), (52, 96), times=2)),
    Part("accent", rectangle(10, 6, 42, 20, 3)),
]
MITTEN = smooth(
    *((6, 68), (2, 30), (10, 6), (38, 6), (43, 30), (46, 42), (58, 32), (60, 46), (44, 66)),
    *((42, 76), (42, 76), (8, 76), (8, 76)),
    times=2,
)
MITTENS = [
    Part("deep", [(100 - x + 2, y + 4) for x, y in MITTEN], True),
    Part("accent", rectangle(58, 76, 97, 94, 4)),
    Part("main", MITTEN, True),
    Part("accent", rectangle(5, 72, 45, 90, 4)),
]
UMBRELLA = [
    Part("accent", line((50, 0), (50, 92), 3.6)),
    Part(
        "accent",
        smooth((48, 86), (52, 86), (53, 94), (62, 96), (68, 84), (72, 86), (66, 104), (46, 102)),
    ),
    Part(
        "main",
        [
            *ellipse(50, 50, 50, 42)[20:],
            (100, 50),
            (92, 46),
            (83, 46),
            (75, 51),
            (67, 46),
            (58, 46),
            (50, 51),
            (42, 46),
            (33, 46),
            (25, 51),
            (17, 46),
            (8, 46),
            (0, 50),
        ],
        True,
    ),
    Part("deep", line((50, 9), (25, 50), 1.8)),
    Part("deep", line((50, 9), (75, 50), 1.8)),
]
PRODUCTS = {
    name.lower(): parts
    for name, parts in list(globals().items())
    if name.isupper() and isinstance(parts, list) and parts and isinstance(parts[0], Part)
}
