"""A sealed text is read only as it was written, to the byte."""

import json

import pytest

from catalog.checksums import dumps_with_checksum, loads_with_checksum

FACTS = {"step": 4, "files": {"state": [10, "ab"]}}


@pytest.mark.parametrize("indent", [None, 2])
def test_json_with_a_checksum_round_trips(indent: int | None) -> None:
    assert loads_with_checksum(dumps_with_checksum(FACTS, indent), indent) == FACTS


@pytest.mark.parametrize(
    "changed",
    [
        dumps_with_checksum(FACTS).replace("4", "5"),
        dumps_with_checksum(FACTS).replace('"ab"', '"ac"'),
        dumps_with_checksum(FACTS) + " ",
        dumps_with_checksum(FACTS)[:-1],
        json.dumps(FACTS),
        json.dumps({**FACTS, "seal": "0" * 64}),
        json.dumps([FACTS]),
        dumps_with_checksum(FACTS, indent=2),
    ],
)
def test_a_changed_text_is_refused(changed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        loads_with_checksum(changed)


def test_non_finite_numbers_get_no_checksum() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps_with_checksum({"loss": float("nan")})
