"""Tokenizes texts as data: no text can produce a special token (defence against prompt injection)."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from generate.text.clean import clean_text

Tokenizer = PreTrainedTokenizerBase

SPECIAL_TOKENS = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
_MARKUP = re.compile(r"\s*(<.*>|\[.*\])\s*", re.DOTALL)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer (GPT-2's) on `texts`; it can encode every string."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean_text(text) for text in texts), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_tokens: int,
    ends: Sequence[int | None] = (),
) -> list[list[int]]:
    """Token ids of each text, closed by its own of `ends` (none given: the tokenizer's end token) unless
    the text is longer than `max_tokens`.

    A truncated text has no end token, so that no model learns to stop in the middle of a sentence. `texts`
    never produce special tokens, whatever they spell.
    """
    ends = ends or [special_id(tokenizer, "eos")] * len(texts)
    encoded = plain_ids(tokenizer, texts)
    return [
        [*ids, *([] if end is None else [end])][:max_tokens]
        for ids, end in zip(encoded, ends, strict=True)
    ]


def plain_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, cleaned, without `reserved_ids`."""
    if not texts:
        return []
    reserved = reserved_ids(tokenizer)
    # verbose=False: no warning for texts beyond the model's context, which are truncated later.
    encoded = tokenizer(
        [clean_text(text) for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        verbose=False,
    )["input_ids"]
    return [[token for token in ids if token not in reserved] for ids in encoded]


def reserved_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that no text may produce: special tokens, and added tokens that look like markup, such as Qwen's
    `<tool_call>`, which its tokenizer does not list as special."""
    added: dict[str, int] = cast(Any, tokenizer).get_added_vocab()
    markup = {token for text, token in added.items() if _MARKUP.fullmatch(text)}
    return frozenset({*tokenizer.all_special_ids, *markup})


def decode_text(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Decodes token ids, and cleans the text as training texts are."""
    return clean_text(str(tokenizer.decode(list(token_ids), skip_special_tokens=True)))


def special_id(tokenizer: Tokenizer, name: Literal["bos", "eos"]) -> int | None:
    """Id of the begin or end token; None where the tokenizer has none."""
    token = getattr(tokenizer, f"{name}_token_id")
    return token if isinstance(token, int) else None
