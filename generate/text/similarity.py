"""Similarity of generated texts to items and histories, by text encoders independent of the generator."""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.evaluation.intervals import Figures, compare_conditions
from generate.evaluation.users import EvaluationUsers
from generate.text.keywords import KeywordIndex, extract_words
from pretrain.hub import check_length, check_tokenizer, read_model, read_tokenizer

TextEncoder = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → embeddings of unit length (texts, width); zeros for empty texts."""
NUM_BUCKETS = 4096
RECENT_ITEMS = 20
"""Newest items of a history whose mean embedding represents it."""


def tfidf_encoder(keyword_index: KeywordIndex) -> TextEncoder:
    """Encodes texts by their tf-idf weighted words, hashed to NUM_BUCKETS dimensions."""
    num_items = keyword_index.catalog.num_items

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), NUM_BUCKETS), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(extract_words(text)).items():
                idf = math.log((1 + num_items) / (1 + keyword_index.document_frequencies[word]))
                bucket = zlib.crc32(word.encode()) % NUM_BUCKETS
                vectors[row, bucket] += (1 + math.log(count)) * idf
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)

    return encode


def load_text_encoder(
    name: str, texts: Sequence[str] = (), batch_size: int = 64, max_tokens: int = 128
) -> TextEncoder:
    """A Hugging Face text encoder, by name or folder: the mean of its last layer.

    Raises VitrineError where the model is no text encoder, or its tokenizer cannot read `texts`.
    """
    model = read_model(name, what="text encoder").eval()
    tokenizer = read_tokenizer(name)
    if model.main_input_name != "input_ids":
        raise VitrineError(
            f"text encoder {name!r} reads {model.main_input_name}; name an encoder of texts"
        )
    check_tokenizer(tokenizer, name, texts, model.config.vocab_size)
    check_length(model.config, max_tokens)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        embeddings = []
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].float()
            pooled = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
            embeddings.append(F.normalize(pooled, dim=-1).numpy())
        return np.concatenate(embeddings)

    return encode


def reference_embeddings(
    encoder: TextEncoder, users: EvaluationUsers, catalog: Catalog
) -> dict[str, NDArray[np.float32]]:
    """Embeddings (num_users, width) of each user's next item, and of their history (a mean over items)."""
    texts = catalog.texts()
    items = encoder([texts(int(item)) or "" for item in users.items])
    histories = np.stack(
        [
            encoder([texts(int(item)) or "" for item in history[-RECENT_ITEMS:]]).mean(axis=0)
            if len(history)
            else np.zeros(items.shape[1], dtype=np.float32)
            for history in users.histories
        ]
    )
    return {"item": items, "history": histories}


def score_similarity(
    encoder: TextEncoder,
    generated: Mapping[str, Sequence[str]],
    references: Mapping[str, NDArray[np.float32]],
) -> Figures:
    """Mean cosine similarity of each condition's texts to each of `reference_embeddings`."""
    embeddings = {condition: encoder(texts) for condition, texts in generated.items()}
    return {
        name: compare_conditions(
            {
                condition: (vectors * reference).sum(axis=1).astype(np.float64)
                for condition, vectors in embeddings.items()
            }
        )
        for name, reference in references.items()
    }
