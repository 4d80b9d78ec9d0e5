"""A sealed text is read only as it was written, to the byte."""

import json

import pytest

from catalog.seals import seal, unseal

FACTS = {"step": 4, "files": {"state": [10, "ab"]}}


@pytest.mark.parametrize("indent", [None, 2])
def test_what_was_sealed_comes_back(indent: int | None) -> None:
    assert unseal(seal(FACTS, indent), indent) == FACTS


@pytest.mark.parametrize(
    "changed",
    [
        seal(FACTS).replace("4", "5"),
        seal(FACTS).replace('"ab"', '"ac"'),
        seal(FACTS) + " ",
        seal(FACTS)[:-1],
        json.dumps(FACTS),
        json.dumps({**FACTS, "seal": "0" * 64}),
        json.dumps([FACTS]),
        seal(FACTS, indent=2),
    ],
)
def test_a_changed_text_is_refused(changed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        unseal(changed)


def test_what_is_not_finite_is_never_sealed() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        seal({"loss": float("nan")})
