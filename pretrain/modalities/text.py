"""Text: a text column, encoded by a Hugging Face text tower (encoder or decoder)."""

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
from pretrain.hub import (
    check_length,
    check_tokenizer,
    make_config,
    num_positions,
    read_tokenizer,
)
from pretrain.modalities.base import Processor, Source, TowerModality, mask_of, tower_spec
from pretrain.tokenizer import shortened, train_tokenizer
from pretrain.towers.pooling import hidden_state, own_embedding, pool
from pretrain.towers.sentence_transformers import SentenceMetadata, read_sentence_metadata

DEFAULT_TOKENS = 48
"""Tokens of a text for towers built from a config."""
LONGEST_DEFAULT = 512
"""Tokens of a text, at most, where neither the settings nor sentence-transformers metadata say more."""
FIXED_LENGTH = {"siglip_text_model", "siglip2_text_model"}
"""Towers that read all their positions, padding included, and without a mask."""
PREDICTED_AT_ONCE = 1024
"""Tokens whose logits over the vocabulary are alive at one time."""


class TextSource(Source):
    def __init__(
        self,
        catalog: Catalog,
        column: str,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        prompt: str = "",
    ) -> None:
        super().__init__()
        self.prompt = prompt
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
            [self.prompt + shortened(text, self.max_tokens) for text in texts],
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
        every = (texts(item) or "" for item in range(catalog.num_items))
        if settings.model:
            spec = tower_spec(settings)
            tokenizer = read_tokenizer(settings.model)
            check_tokenizer(tokenizer, settings.model, every, spec["tower"].get("vocab_size"))
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            metadata = None
            if settings.pooling == "auto":
                metadata = read_sentence_metadata(settings.model)
            spec |= _as_metadata_says(cls(spec), settings, metadata, tokenizer)
        else:
            tokenizer = train_tokenizer(every, settings.vocab_size)
            marks = {"pad": tokenizer.pad_token_id, "bos": 2, "eos": 3}
            spec = tower_spec(
                settings,
                vocab_size=len(tokenizer),
                **{f"{name}_token_id": value for name, value in marks.items()},
            )
            spec |= {"max_tokens": settings.max_tokens or DEFAULT_TOKENS}
            spec["prompt"] = settings.prompt or ""
        config = make_config(spec["tower"])
        check_length(config, spec["max_tokens"])
        spec["length_groups"] = settings.length_groups
        spec["special_tokens"] = tokenizer("")["input_ids"]  # those it adds to every text
        if config.model_type in FIXED_LENGTH:
            spec["fixed_length"] = num_positions(config)
            spec["pad_token"] = tokenizer.pad_token_id or 0
        length = spec.get("fixed_length") or min(4, spec["max_tokens"])
        kind = cls(spec).with_width(input_ids=torch.zeros(1, length, dtype=torch.int64))
        return kind, tokenizer

    @staticmethod
    def load_processor(folder: Path) -> Processor:
        return AutoTokenizer.from_pretrained(folder)

    def open(self, catalog: Catalog, processor: Processor | None) -> TextSource:
        assert processor is not None
        spec = self.spec
        return TextSource(
            catalog, spec["source"], processor, spec["max_tokens"], spec.get("prompt", "")
        )

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
        spec = self.spec
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "fixed_length" in spec:  # trained with padding to one length, which is attended to
            padding = spec["fixed_length"] - ids.shape[1]
            inputs = {"input_ids": F.pad(ids, (0, padding), value=spec["pad_token"])}
            mask = F.pad(mask, (0, padding))
        if spec["pooling"] == "embedding" and self.head is None:
            vectors = own_embedding(tower, **inputs)
            return self._normalized(vectors), vectors.new_zeros(len(vectors), 2)
        hidden = hidden_state(tower, spec["layer"], **inputs)
        pooled = self._normalized(pool(hidden, spec["pooling"], self._pooled_tokens(mask)))
        if self.head is None:
            return pooled, pooled.new_zeros(len(pooled), 2)
        return pooled, next_token_nll(hidden, ids, mask, self.head)

    def _pooled_tokens(self, mask: Tensor) -> Tensor:
        """The mask without the prompt's tokens, where the checkpoint does not pool them."""
        excluded = self.spec.get("unpooled_tokens", 0)
        if not excluded:
            return mask
        mask = mask.clone()
        mask[:, :excluded] = 0
        return mask

    def _normalized(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.spec.get("normalize") else vectors

    @property
    def is_causal(self) -> bool:
        """Whether the tower is a causal decoder, whose tokens attend only to those before them."""
        config = self.config
        decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        reads_both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return decoder and (not reads_both_ways or bool(getattr(config, "is_decoder", False)))


def _as_metadata_says(
    kind: Text,
    settings: ModalityConfig,
    metadata: SentenceMetadata | None,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Pooling, prompt and length of a checkpoint: its metadata, overruled by the settings."""
    spec: dict[str, Any] = {"prompt": settings.prompt or ""}
    if settings.pooling == "auto" and metadata is not None:
        spec |= {"pooling": metadata.pooling, "normalize": metadata.normalize}
        if settings.prompt is None:
            spec["prompt"] = metadata.prompt
        if spec["prompt"] and not metadata.include_prompt:
            ids = tokenizer(spec["prompt"])["input_ids"]
            spec["unpooled_tokens"] = len(ids) - int(ids[-1:] == [tokenizer.sep_token_id])
    elif settings.pooling == "auto" and kind.is_causal:
        spec["pooling"] = "last"
    limits = (num_positions(kind.config), tokenizer.model_max_length, LONGEST_DEFAULT)
    if metadata is not None and metadata.max_tokens:
        limits = (*limits[:2], metadata.max_tokens)
    known = [limit for limit in limits if limit]
    spec["max_tokens"] = settings.max_tokens or min(known)
    return spec


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
