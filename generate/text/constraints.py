"""Constrained decoding of numbers: prices, sizes and quantities can only be those of the item.

A number is a run of digits with separators inside ("1,299.50"). While one is being written, only tokens may
follow by which it stays a prefix of an allowed number, and only a whole allowed number may end. Units are
left to the faithfulness check. Knows nothing about models: it maps the tokens of a text to those that may not
come next.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from generate.text.clean import clean_text
from generate.text.tokenizer import Tokenizer

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SEPARATORS = ".,"
_OPEN = re.compile(r"\d[\d.,]*$")
MAX_STATES = 4096
"""Cached states of one item, at most."""


class NumberTokens:
    """Classes of one tokenizer's tokens: those that can write a part of a number, and all others."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> None:
        """`vocab_size`: number of logits, where the model has more than the tokenizer has tokens."""
        self.vocab_size = vocab_size or len(tokenizer)
        pieces = _pieces(tokenizer)
        self.numeric: dict[int, str] = {
            token: piece
            for token, piece in pieces.items()
            if any(sign.isdecimal() for sign in piece) or piece[:1] in tuple(SEPARATORS)
        }
        """Token → its text, of tokens with a digit, or with a separator in front."""
        self.invisible = frozenset(
            token
            for token in range(len(tokenizer))
            if not pieces.get(token, "").isspace() and not clean_text(pieces.get(token, ""))
        )
        """Tokens that leave no sign in a text (special ones, parts of a character): no number ends there."""
        plain = torch.ones(self.vocab_size, dtype=torch.bool)
        plain[list(self.numeric)] = False
        self.others = plain.nonzero()[:, 0]
        """Ids of all other tokens, the end token among them: they end a number."""


class NumberConstraint:
    """The numbers that a text about one item may contain; a hook of the decoder for one request.

    `forbidden` takes the tokens of the text so far and returns those that may not come next.
    """

    def __init__(self, tokens: NumberTokens, values: Iterable[str]) -> None:
        """`values`: texts with the allowed numbers, such as "49.90", "10 x 20 cm", or a whole description."""
        self.tokens = tokens
        self.allowed = frozenset(number for value in values for number in NUMBER.findall(value))
        self.prefixes = frozenset(
            number[:end] for number in self.allowed for end in range(len(number) + 1)
        )
        self._cache: dict[str, Tensor] = {}

    def forbidden(self, token_ids: Sequence[int]) -> Tensor:
        """Ids that may not follow: int64 (num_forbidden,), in no order; the caller does not change it.

        O(length of the number under way), and once for each state O(tokens with digits).
        """
        state = self.state(token_ids)
        if state not in self._cache:
            if len(self._cache) >= MAX_STATES:
                self._cache.clear()
            self._cache[state] = self._find(state)
        return self._cache[state]

    def state(self, token_ids: Sequence[int]) -> str:
        """The number under way at the end of a text, "" if there is none."""
        written = ""
        for token in reversed(token_ids):
            if token in self.tokens.invisible:
                continue
            piece = self.tokens.numeric.get(int(token))
            if piece is None:
                break
            written = piece + written
        found = _OPEN.search(written)
        return found[0] if found else ""

    def _find(self, state: str) -> Tensor:
        ids = [
            token
            for token, piece in self.tokens.numeric.items()
            if not self._may_follow(state, piece)
        ]
        forbidden = torch.tensor(ids, dtype=torch.long)
        return forbidden if self._may_end(state) else torch.cat([forbidden, self.tokens.others])

    def _may_end(self, state: str) -> bool:
        return not state or state.rstrip(SEPARATORS) in self.allowed

    def _may_follow(self, state: str, piece: str) -> bool:
        """Whether a number under way stays possible with the piece behind it."""
        for sign in piece:
            if sign.isdecimal():
                state += sign
                if state not in self.prefixes:
                    return False
            elif sign in SEPARATORS and state and state[-1].isdecimal():
                if state + sign not in self.prefixes and state not in self.allowed:
                    return False
                state += sign
            else:
                if not self._may_end(state):
                    return False
                state = ""
        return True


@lru_cache(maxsize=4)
def number_tokens(tokenizer: Tokenizer, vocab_size: int) -> NumberTokens:
    return NumberTokens(tokenizer, vocab_size)


def number_constraints(
    tokenizer: Tokenizer, vocab_size: int, item_texts: Sequence[str]
) -> list[Callable[[Sequence[int]], Tensor] | None]:
    """A hook of the decoder for each text, by its item's columns; None for a text without an item."""
    if not any(item_texts):
        return [None] * len(item_texts)
    tokens = number_tokens(tokenizer, vocab_size)
    return [
        NumberConstraint(tokens, item_numbers(text)).forbidden if text else None
        for text in item_texts
    ]


def item_numbers(facts: str, price: float | None = None) -> tuple[str, ...]:
    """Numbers of an item as they may be written: those of its facts, and its price, also without cents."""
    found = set(NUMBER.findall(facts))
    if price is not None:
        found |= {f"{price:.2f}", f"{price:.2f}".replace(".", ","), f"{price:,.2f}"}
        found |= {str(round(price))} if price == round(price) else set()
    return tuple(sorted(found))


def _pieces(tokenizer: Tokenizer) -> dict[int, str]:
    """Each token's text within a text, without the special ones."""
    special = set(tokenizer.all_special_ids)
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    before = len(_decoded(tokenizer, anchor))
    return {
        token: _decoded(tokenizer, [*anchor, token])[before:]
        for token in range(len(tokenizer))
        if token not in special
    }


def _decoded(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))
