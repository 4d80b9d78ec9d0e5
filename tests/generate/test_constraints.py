"""Constrained decoding of numbers, by a tiny tokenizer and a decoder that samples at random."""

import re

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from generate.text.config import WriteConfig
from generate.text.constraints import NUMBER, NumberConstraint, NumberTokens, item_numbers
from generate.text.prompts import Conditions
from generate.text.tokenizer import plain_ids, train_tokenizer
from tests.generate.tiny_text import make_generator, random_vectors

TEXTS = [
    "Pack of 12, 5 m cord. It costs 49.90, or 1,299.50 for 100.",
    "10 x 20 cm, 3 to 5 kg, since 1995; 200, 499, 129, 12.5",
] * 20


@pytest.fixture(scope="module", params=[280, 330])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Byte-level BPE: of single digits alone, and with tokens of several."""
    return train_tokenizer(TEXTS, request.param)


@pytest.fixture(scope="module")
def tokens(tokenizer: PreTrainedTokenizerFast) -> NumberTokens:
    return NumberTokens(tokenizer)


def decode_at_random(
    tokenizer: PreTrainedTokenizerFast, constraint: NumberConstraint, seed: int, length: int = 60
) -> str:
    """A toy decoder whose tokens of digits and separators are as likely as all others together."""
    generator = torch.Generator().manual_seed(seed)
    token_ids: list[int] = []
    numeric = torch.tensor(list(constraint.tokens.numeric))
    while len(token_ids) < length:
        weights = torch.ones(constraint.tokens.vocab_size)
        weights[numeric] = len(weights) / len(numeric)
        weights[constraint.forbidden(token_ids)] = 0
        token = int(torch.multinomial(weights, 1, generator=generator))
        if token == tokenizer.eos_token_id:
            break
        token_ids.append(token)
    else:  # a text that is cut off may end within a number
        while constraint.state(token_ids):
            token_ids.pop()
    return str(tokenizer.decode(token_ids, skip_special_tokens=True))


def test_no_decoded_number_is_not_the_items(
    tokenizer: PreTrainedTokenizerFast, tokens: NumberTokens
) -> None:
    values = ("12", "5 m", "49.90", "1,299.50", "10 x 20 cm")
    allowed = {"12", "5", "49.90", "1,299.50", "10", "20"}
    constraint = NumberConstraint(tokens, values)
    assert constraint.allowed == allowed
    found: set[str] = set()
    for seed in range(60):
        text = decode_at_random(tokenizer, constraint, seed)
        found.update(re.findall(r"[0-9]+(?:[.,][0-9]+)*", text))
    assert found <= allowed
    assert len(found) >= 4, "the constraint forbids nearly every number"


def test_a_growing_number_is_completed_before_anything_else(
    tokenizer: PreTrainedTokenizerFast, tokens: NumberTokens
) -> None:
    constraint = NumberConstraint(tokens, ["49.90"])

    def may_follow(text: str, piece: str) -> bool:
        (before,), (after,) = plain_ids(tokenizer, [text]), plain_ids(tokenizer, [piece])
        assert len(after) == 1
        return after[0] not in set(constraint.forbidden(before).tolist())

    end = tokenizer.eos_token_id
    for text, piece, expected in (
        ("costs ", "4", True),
        ("costs ", "9", False),
        ("costs 4", "9", True),
        ("costs 4", "a", False),
        ("costs 49", ".", True),
        ("costs 49", ",", False),
        ("costs 49.9", "0", True),
        ("costs 49.90", "0", False),
        ("costs 49.90", ".", True),
        ("costs 49.90", "a", True),
        ("costs 49.90.", "5", False),
        ("a", ".", True),
    ):
        assert may_follow(text, piece) == expected, (text, piece)
    (open_number,), (whole,) = plain_ids(tokenizer, ["at 49"]), plain_ids(tokenizer, ["at 49.90"])
    assert end in constraint.forbidden(open_number), "a text cannot end within a number"
    assert end not in constraint.forbidden(whole)


def test_an_item_without_numbers_gets_none(tokens: NumberTokens) -> None:
    forbidden = set(NumberConstraint(tokens, ["red wool"]).forbidden([]).tolist())
    with_digits = {
        token for token, piece in tokens.numeric.items() if any(map(str.isdecimal, piece))
    }
    assert forbidden == with_digits


def test_a_state_is_computed_once(tokens: NumberTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = NumberConstraint(tokens, ["12"])
    first = constraint.forbidden([])
    monkeypatch.setattr(constraint, "_find", None)
    assert constraint.forbidden([]) is first


def test_the_price_may_be_written_in_several_ways() -> None:
    assert item_numbers("Pack of 12", 1299.5) == ("1,299.50", "12", "1299,50", "1299.50")
    assert item_numbers("", 20.0) == ("20", "20,00", "20.00")


def test_a_generator_writes_only_the_numbers_of_the_item_where_it_is_asked_to() -> None:
    generator = make_generator()
    conditions = Conditions(random_vectors(40), item_texts=["Lamp 49.90 12 cm"] * 20 + [""] * 20)

    def numbers(constrained: bool) -> list[set[str]]:
        config = WriteConfig(temperature=3.0, constrain_numbers=constrained)
        texts = generator.write(conditions, "review", seeds=range(40), config=config)
        return [set(NUMBER.findall(text)) for text in texts]

    free, bound = numbers(False), numbers(True)
    # Numbers that the length cut off are prefixes.
    allowed = ("49.90", "49", "4", "12", "1", "90", "49.9", "9", "0", "2")
    assert set().union(*free[:20]) - set(allowed)
    assert set().union(*bound[:20]) <= set(allowed)
    assert bound[20:] == free[20:], "a text without an item is free"
