"""Sizes and ages as people write them: 20GB, 30d."""

import re

from catalog.errors import VitrineError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
AGES = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_size(text: str, name: str) -> int:
    """Bytes of a text such as 500MB or 1.5 GiB; VitrineError if it is none. `name`: of the setting."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = (found[2] or "B").upper() if found else ""
    if not found or unit not in UNITS:
        raise VitrineError(
            f"{name} is {text!r}, which is no size; write it as 500MB, 20GB or 1TiB."
        )
    return round(float(found[1]) * UNITS[unit])


def parse_age(text: str, name: str) -> float:
    """Seconds of a text such as 12h or 30d; VitrineError if it is none. `name`: of the setting."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw])\s*", text)
    if not found:
        raise VitrineError(f"{name} is {text!r}, which is no age; write it as 90m, 12h, 30d or 8w.")
    return float(found[1]) * AGES[found[2]]


def format_size(size: int) -> str:
    """Bytes in a unit that leaves up to four digits: 1.5 GB."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
