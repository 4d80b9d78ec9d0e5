"""Quantities in a text: numbers with their unit or currency, so that 12 m equals 1,200 cm, but not 12.

"two" to "twelve" are numbers as well; "one" is rarely a number.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from generate.text.scripts import UNSPACED

MONEY = "money"
_LENGTHS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3, "inch": 0.0254, "ft": 0.3048, "yd": 0.9144}
_WEIGHTS = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "oz": 28.349523, "lb": 453.59237}
_VOLUMES = {"ml": 1e-3, "cl": 1e-2, "dl": 0.1, "l": 1.0, "fl oz": 0.0295735}
_TIMES = {"min": 60.0, "h": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_629_800.0}
_TIMES |= {"year": 31_557_600.0}
_OTHERS = {"%": 1.0, "°": 1.0, "v": 1.0, "w": 1.0, "kw": 1e3, "mah": 1.0, "mb": 1e-3, "gb": 1.0}
_OTHERS |= {"tb": 1e3, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9, "°f": 1.0, "den": 1.0}
_OTHERS |= {
    "gsm": 1.0,
    "dpi": 1.0,
    "rpm": 1.0,
    "psi": 1.0,
    "lm": 1.0,
    "kcal": 1.0,
    "carat": 1.0,
    "db": 1.0,
}
_SPELLINGS = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "inch": "inches ″",
    "ft": "foot feet",
    "yd": "yard yards",
    "g": "gram grams gr",
    "kg": "kilo kilos kilogram kilograms",
    "oz": "ounce ounces",
    "lb": "lbs",
    "ml": "milliliter milliliters millilitre millilitres",
    "l": "liter liters litre litres",
    "min": "minute minutes mins",
    "h": "hour hours hrs",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years",
    "%": "percent",
    "°": "°c ℃",
    "v": "volt volts",
    "w": "watt watts",
    "den": "denier",
    "lm": "lumen lumens",
    "kcal": "calories",
    "carat": "carats ct",
    "db": "decibel decibels",
}
_WRITTEN = "two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = {word: float(value) for value, word in enumerate(_WRITTEN.split(), start=2)}
_CURRENCIES = ("$", "€", "£", "¥", "₹", "usd", "eur", "gbp", "jpy", "dollars", "euros")


def _units() -> dict[str, tuple[str, float]]:
    """Unit as written → what it measures, and its size in the base unit."""
    units: dict[str, tuple[str, float]] = dict.fromkeys(_CURRENCIES, (MONEY, 1.0))
    groups = {"length": _LENGTHS, "weight": _WEIGHTS, "volume": _VOLUMES, "time": _TIMES}
    for kind, sizes in groups.items():
        units |= {name: (kind, size) for name, size in sizes.items()}
    # Units that convert into each other measure the same.
    kinds = {"mb": "gb", "tb": "gb", "kw": "w", "khz": "hz", "mhz": "hz", "ghz": "hz"}
    units |= {name: (kinds.get(name, name), size) for name, size in _OTHERS.items()}
    for name, others in _SPELLINGS.items():
        units |= dict.fromkeys(others.split(), units[name])
    return units


UNITS = _units()
_BOUND = rf"[^\W{UNSPACED}]"
_NUMBER = rf"(?:\d++(?:[.,]\d++)*+|(?:{'|'.join(NUMBER_WORDS)})(?!{_BOUND}))"
_QUANTITY = re.compile(
    rf"(?<!{_BOUND})(?<![.,])(?P<money>[$€£¥₹])?\s?(?P<numbers>{_NUMBER}"
    rf"(?:\s?(?:[x×*/–-]|to|by)\s?{_NUMBER})*+)"
    rf"(?:[\s-]?(?P<unit>{'|'.join(map(re.escape, sorted(UNITS, key=len, reverse=True)))})(?!{_BOUND}))?"
)
_EACH = re.compile(_NUMBER)


@dataclass(frozen=True)
class Quantity:
    words: str
    """The number as written, and its unit after a space."""
    value: float | str
    """In the base unit of its kind; a date, or a version, as text."""
    kind: str | None
    """What its unit measures; None without a unit."""


def quantities(text: str) -> Iterator[Quantity]:
    """Finds quantities in a lower-case text. In "10 x 20 cm" and "5 to 10 cm" both numbers have the unit."""
    for match in _QUANTITY.finditer(text):
        unit = match["unit"] or match["money"]
        kind, size = UNITS[unit] if unit else (None, 1.0)
        for number in _EACH.findall(match["numbers"]):
            value = parse_number(number)
            if isinstance(value, float):
                value = float(f"{value * size:.9g}")
            yield Quantity(f"{number} {unit}" if unit else number, value, kind)


def parse_number(text: str) -> float | str:
    """Parses a number: 1,299.50, 1.299,50 and 1299.5 are equal, as are 12,5 and 12.5; a date stays text."""
    if text in NUMBER_WORDS:
        return NUMBER_WORDS[text]
    if re.fullmatch(r"\d{1,3}(\.\d{3})+,\d{1,2}", text):
        return float(text.replace(".", "").replace(",", "."))
    if re.fullmatch(r"\d+,\d{1,2}", text):
        return float(text.replace(",", "."))
    if re.fullmatch(r"\d+(,\d{3})*(\.\d+)?", text):
        return float(text.replace(",", ""))
    return text
