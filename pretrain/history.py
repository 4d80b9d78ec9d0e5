"""Reads a history of item vectors, causally, into one vector after each step.

The behaviour objective trains it here, beside the towers, so that a new domain starts from a reader
that has seen histories; fine-tuning builds its user model on it. Knows nothing about candidates.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel


class HistoryEncoderConfig(PretrainedConfig):
    model_type = "vitrine-history-encoder"

    def __init__(
        self,
        width: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        max_history: int = 32,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.max_history = max_history
        self.dropout = dropout
        super().__init__(**kwargs)


def rotary(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, head_width) of rotary positions (Su et al., 2021)."""
    rates = 10000.0 ** (-torch.arange(0, head_width, 2, device=device).float() / head_width)
    angles = torch.arange(length, device=device).float()[:, None] * rates  # (length, head_width/2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return (x * cosines + turned * sines).to(x.dtype)  # weights may be half precision, angles not


class Block(nn.Module):
    """Pre-norm causal attention and MLP (SASRec's block, with rotary instead of absolute positions)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        rows, length, width = x.shape
        y = self.attention_norm(x)
        shape = (rows, length, self.num_heads, width // self.num_heads)
        q, k, v = (
            p(y).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(rows, length, width)
        x = x + self.dropout(self.o_proj(attended))
        return x + self.dropout(self.down_proj(F.gelu(self.up_proj(self.mlp_norm(x)))))


class RecentMean(nn.Module):
    """The mean of what was taken so far, newer items weighing more, and what is added to it.

    From little data the mean of a person's items is hard to beat, as simple methods often are
    (Ludewig and Jannach, 2018, show it of neighbours against recurrent networks): a reader that
    starts as the mean has only to learn what the mean misses.
    """

    def __init__(self, width: int, correction: float = 0.1) -> None:
        super().__init__()
        self.forgetting = nn.Parameter(torch.zeros(1))
        self.correction = nn.Parameter(torch.full((width,), correction))

    def forward(self, vectors: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        """`vectors` and `read` (rows, length, width); `mask` bool (rows, length, length)."""
        places = torch.arange(vectors.shape[1], device=vectors.device)
        ages = (places.unsqueeze(1) - places).to(vectors.dtype)  # (length, length)
        weights = (-self.forgetting * ages).masked_fill(~mask, float("-inf")).softmax(dim=-1)
        return F.normalize(weights @ vectors, dim=-1) + self.correction * F.normalize(read, dim=-1)


class HistoryEncoder(PreTrainedModel):
    """A causal transformer over item vectors.

    Several people's stretches of history may share a row (packing): `segments` keeps them apart,
    and rotary positions, being relative, need no reset between them.
    """

    config_class = HistoryEncoderConfig
    base_model_prefix = "history_encoder"

    def __init__(self, config: HistoryEncoderConfig) -> None:
        super().__init__(config)
        self.input_scale = config.width**0.5  # unit vectors → unit variance, as layers expect
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.recent = RecentMean(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, vectors: Tensor, segments: Tensor) -> Tensor:
        """A state after each step.

        `vectors` (rows, length, width), unit length; `segments` int (rows, length): slots with the
        same number belong to one history, -1 is padding. Returns (rows, length, width), unit length.
        """
        length = vectors.shape[1]
        same = segments.unsqueeze(2) == segments.unsqueeze(1)  # (rows, length, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=vectors.device).tril()
        mask = same & causal  # a slot always sees itself, so no row is empty
        cosines, sines = rotary(length, vectors.shape[2] // self.config.num_heads, vectors.device)
        x = self.dropout(vectors * self.input_scale)
        for block in self.blocks:
            x = block(x, mask.unsqueeze(1), cosines, sines)
        return F.normalize(self.recent(vectors, self.norm(x), mask), dim=-1)


AutoConfig.register(HistoryEncoderConfig.model_type, HistoryEncoderConfig)
