"""Text: a text column, encoded by any Hugging Face text tower (encoder or decoder)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from typing_extensions import override

from catalog.catalog import Catalog
from pretrain.config import ModalityConfig
from pretrain.hub import check_length, check_tokenizer, make_config, read_tokenizer
from pretrain.modalities.base import Processor, Source, TowerModality, mask_of, tower_spec
from pretrain.tokenizer import shortened, train_tokenizer
from pretrain.towers import pool

PREDICTED_AT_ONCE = 1024
"""Tokens whose logits over the vocabulary are alive at one time."""


class TextSource(Source):
    def __init__(
        self,
        catalog: Catalog,
        column: str,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
    ) -> None:
        super().__init__()
        self.texts = catalog.texts(column)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.ahead: dict[int, list[int]] = {}

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        rows = self._tokens(items)
        present = np.array([bool(row) for row in rows])
        kept = [row for row in rows if row] or [[self.tokenizer.pad_token_id or 0]]
        lengths = np.array([len(row) for row in kept])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id or 0)
        ids[mask] = np.concatenate(kept)
        return {
            "present": mask_of(present),
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }

    def _tokens(self, items: NDArray[np.int64]) -> list[list[int]]:
        """Token ids of each item, an empty list for an item without text."""
        if self.ahead:
            return [self.ahead[int(item)] for item in items]
        texts = [self.texts(int(item)) or "" for item in items]
        if not any(texts):
            return [[] for _ in texts]
        rows = self.tokenizer(
            [shortened(text, self.max_tokens) for text in texts],
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
        )["input_ids"]
        return [row if text else [] for row, text in zip(rows, texts, strict=True)]

    @override
    def prefetch(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        self.ahead = {}
        rows = self._tokens(items)
        self.ahead = dict(zip(items.tolist(), rows, strict=True))
        return np.array([len(row) for row in rows], dtype=np.int64)

    @override
    def release(self) -> None:
        self.ahead = {}
        self.texts.release()


class Text(TowerModality):
    kind = "text"
    reads = "input_ids"

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self.head: nn.Module | None = None
        """Language modelling head, hidden states → logits; if set, `encode` stores `token_nll`."""
        self.token_nll: Tensor | None = None
        """Of the last `encode`, (k, 2): summed negative log-likelihood of the tokens, and their number."""

    @classmethod
    def new(
        cls, settings: ModalityConfig, catalog: Catalog
    ) -> tuple["Text", PreTrainedTokenizerBase]:
        texts = catalog.texts(settings.source)
        if settings.model:
            spec = tower_spec(settings)
            tokenizer = read_tokenizer(settings.model)
            every = (texts(item) or "" for item in range(catalog.num_items))
            check_tokenizer(tokenizer, settings.model, every, spec["tower"].get("vocab_size"))
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
        else:
            every = (texts(item) or "" for item in range(catalog.num_items))
            tokenizer = train_tokenizer(every, settings.vocab_size)
            marks = {"pad": tokenizer.pad_token_id, "bos": 2, "eos": 3}
            spec = tower_spec(
                settings,
                vocab_size=len(tokenizer),
                **{f"{name}_token_id": value for name, value in marks.items()},
            )
        check_length(make_config(spec["tower"]), settings.max_tokens)
        spec |= {"max_tokens": settings.max_tokens, "length_groups": settings.length_groups}
        spec["special_tokens"] = tokenizer("")["input_ids"]  # those it adds to every text
        return cls(spec), tokenizer

    @staticmethod
    def load_processor(folder: Path) -> Processor:
        return AutoTokenizer.from_pretrained(folder)

    def open(self, catalog: Catalog, processor: Processor | None) -> TextSource:
        assert processor is not None
        return TextSource(catalog, self.spec["source"], processor, self.spec["max_tokens"])

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Encodes texts in groups of similar length, so that there is little padding: (k, width)."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = mask.sum(dim=1)
        order = torch.argsort(lengths, stable=True)
        groups = max(1, self.spec["length_groups"])
        edges = [len(order) * group // groups for group in range(groups + 1)]
        longest = lengths[order][[max(0, edge - 1) for edge in edges[1:]]].tolist()
        vectors, token_nll = [], []
        for group in range(groups):
            rows = order[edges[group] : edges[group + 1]]
            # All ranks run the same number of passes, however many texts they have: an empty group
            # encodes one text whose result has weight 0.
            chosen = rows if len(rows) else order[:1]
            length = max(1, int(longest[group] if len(rows) else lengths[order[0]]))
            encoded, nll = self._encode(tower, ids[chosen, :length], mask[chosen, :length])
            if not len(rows):
                encoded, nll = encoded[:0] + 0.0 * encoded.sum(), nll[:0] + 0.0 * nll.sum()
            vectors.append(encoded)
            token_nll.append(nll)
        back = torch.argsort(order)
        self.token_nll = None if self.head is None else torch.cat(token_nll)[back]
        return torch.cat(vectors)[back]

    def _encode(self, tower: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(tower, input_ids=ids, attention_mask=mask)
        pooled = pool(hidden, self.spec["pooling"], mask)
        if self.head is None:
            return pooled, pooled.new_zeros(len(pooled), 2)
        return pooled, next_token_nll(hidden, ids, mask, self.head)

    @property
    def is_causal(self) -> bool:
        """Whether the tower is a causal decoder, whose tokens attend only to those before them."""
        config = self.config
        decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        reads_both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return decoder and (not reads_both_ways or bool(getattr(config, "is_decoder", False)))


def next_token_nll(hidden: Tensor, ids: Tensor, mask: Tensor, head: nn.Module) -> Tensor:
    """Negative log-likelihood of each text's tokens given those before them.

    `hidden` (k, length, h), `ids` and `mask` int (k, length); `head` maps (m, h) to (m, vocabulary).
    Returns (k, 2): summed negative log-likelihood and number of tokens. Logits are computed in blocks,
    and again in the backward pass, so that (k · length) × vocabulary is never in memory.
    """
    states = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    targets = ids[:, 1:].reshape(-1)
    counted = mask[:, 1:].to(torch.float32)

    def block_nll(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="none")

    # Texts of one token have no next token; the head runs anyway, because every rank must call it.
    states = states if len(states) else hidden[:, 0]
    targets = targets if len(targets) else ids[:, 0]
    blocks = zip(states.split(PREDICTED_AT_ONCE), targets.split(PREDICTED_AT_ONCE), strict=True)
    each = torch.cat([checkpoint(block_nll, *block, use_reentrant=False) for block in blocks])
    if not counted.numel():
        return (0.0 * each).unsqueeze(1).expand(-1, 2)
    each = each.view_as(counted) * counted
    return torch.stack([each.sum(dim=1), counted.sum(dim=1)], dim=1)
