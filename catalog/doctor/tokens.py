"""Checks how much of the texts a tokenizer knows; loads tokenizer.json alone, without a model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from catalog.doctor.context import Context
from catalog.doctor.finding import Finding
from catalog.errors import VitrineError, one_line_message

SAMPLED = 50_000
"""Texts that are tokenized."""
CHUNK = 1_000
UNKNOWN = 0.1
NAMES = ("[UNK]", "<unk>", "<UNK>", "UNK")


def unknown_tokens(context: Context) -> Iterable[Finding]:
    """Texts with many tokens unknown to the given tokenizer, in a sample of `SAMPLED` texts at most."""
    if not context.tokenizer:
        return []
    tokenizer = load_tokenizer(context.tokenizer)
    unknown = next((n for n in map(tokenizer.token_to_id, NAMES) if n is not None), None)
    rows, texts = context.sampled_texts(SAMPLED)
    if unknown is None or not len(rows):
        return []
    shares = np.zeros(len(rows))
    for start in range(0, len(rows), CHUNK):
        chunk = texts.slice(start, CHUNK).to_pylist()
        for place, encoding in enumerate(tokenizer.encode_batch(chunk, add_special_tokens=False)):
            shares[start + place] = np.mean(np.equal(encoding.ids, unknown)) if encoding.ids else 0
    found = rows[shares > UNKNOWN]
    worst = found[np.argsort(-shares[shares > UNKNOWN], kind="stable")]
    sentence = f"{{n}} texts have more than {UNKNOWN:.0%} tokens unknown to the tokenizer"
    return context.found("unknown-tokens", found, sentence, first=worst)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a file tokenizer.json, of a folder with one, or of a name on the Hugging Face hub.

    VitrineError where there is none.
    """
    from tokenizers import Tokenizer

    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        if path.exists() or name.startswith(("/", ".")):
            raise FileNotFoundError("no tokenizer.json is there")
        from huggingface_hub import hf_hub_download

        return Tokenizer.from_file(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # the libraries raise errors of many kinds
        raise VitrineError(
            f"no tokenizer could be read from {name!r} ({one_line_message(error, 120)}); give a "
            "tokenizer.json, a folder that holds one, or a model's name."
        ) from error


CHECKS = (unknown_tokens,)
