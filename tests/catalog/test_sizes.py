"""Sizes and ages as people write them."""

import pytest

from catalog.sizes import format_size, parse_age, parse_size

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500MB", 5e8), ("1.5 GiB", 1.5 * 2**30), ("20gb", 2e10)]
)
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text, "limit") == size


def test_ages_and_forms() -> None:
    assert [parse_age(text, "age") for text in ("90m", "12h", "1.5d", "2w")] == [
        5400,
        43_200,
        1.5 * DAY,
        14 * DAY,
    ]
    assert [format_size(size) for size in (0, 999, 1000, 25_300_000, 10**13)] == [
        "0 B",
        "999 B",
        "1.0 KB",
        "25.3 MB",
        "10.0 TB",
    ]
