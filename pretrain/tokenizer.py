"""Trains a byte-pair tokenizer on the catalog's own text, for towers built from a config."""

from collections.abc import Iterable

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


LONGEST_WORD = 64
"""Maximum length of a word in tokenizer training, whose time grows fast with the length of words."""
LETTERS_A_TOKEN = 64
"""Characters of a text that are tokenized, per token of the maximum length."""


def shortened(text: str, max_tokens: int) -> str:
    """The beginning of a text, long enough for `max_tokens` tokens."""
    return text[: max_tokens * LETTERS_A_TOKEN]


def _without_endless_words(text: str) -> str:
    if len(text) <= LONGEST_WORD:
        return text
    return " ".join(word[:LONGEST_WORD] for word in text.split())


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer (Sennrich et al., 2016), lower-cased; ids 0–3 are [PAD] [UNK] [CLS] [SEP].

    The same texts give the same tokenizer in every process, which ranks rely on. (The library's
    word-piece trainer does not: equally frequent pieces come in the order of a random hash.)
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(map(_without_endless_words, texts), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
