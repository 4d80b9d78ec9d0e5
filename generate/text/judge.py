"""How near texts are to each other, by readers that nothing was conditioned on."""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from catalog.errors import VitrineError
from generate.text.facts import Facts, words_of
from pretrain.hub import check_length, check_tokenizer, read_model, read_tokenizer

Judge = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → vectors of unit length (texts, width); of nothing, zeros."""
BUCKETS = 4096


def word_judge(facts: Facts) -> Judge:
    """By the words they share, rare ones weighing more (tf-idf), hashed."""
    num_items = facts.catalog.num_items

    def read(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), BUCKETS), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(words_of(text)).items():
                rarity = math.log((1 + num_items) / (1 + facts.words[word]))
                vectors[row, zlib.crc32(word.encode()) % BUCKETS] += (1 + math.log(count)) * rarity
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)

    return read


def model_judge(
    name: str, texts: Sequence[str] = (), chunk: int = 64, max_tokens: int = 128
) -> Judge:
    """By a Hugging Face encoder of texts, by name or folder: the mean of its last layer. Its tokenizer
    must read `texts`."""
    model = read_model(name, what="judge", dtype=torch.float32).eval()
    tokenizer = read_tokenizer(name)
    if model.main_input_name != "input_ids":
        raise VitrineError(
            f"judge {name!r} reads {model.main_input_name}; name an encoder of texts"
        )
    check_tokenizer(tokenizer, name, texts, model.config.vocab_size)
    check_length(model.config, max_tokens)

    @torch.inference_mode()
    def read(texts: Sequence[str]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(texts), chunk):
            batch = tokenizer(
                list(texts[start : start + chunk]),
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].float()
            pooled = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
            found.append(F.normalize(pooled, dim=-1).numpy())
        return np.concatenate(found)

    return read
