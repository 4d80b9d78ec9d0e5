"""Pooling: reduces a tower's output to one vector per row."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from catalog.errors import VitrineError

Pooling = Literal["mean", "cls", "last", "max", "sqrt_mean", "weighted_mean", "embedding"]

EMBEDDINGS = ("text_embeds", "image_embeds", "audio_embeds", "pooler_output")
"""Fields of a model's output that hold its own embedding, in order of preference."""
FORWARD_OPTIONS: dict[str, dict[str, Any]] = {"vjepa2": {"skip_predictor": True}}
"""Model type → options of its forward pass."""


def encode(
    tower: nn.Module, pooling: str, layer: int = -1, mask: Tensor | None = None, **inputs: Any
) -> Tensor:
    """One vector per row of a tower's `inputs`: (batch, width)."""
    if pooling == "embedding":
        return own_embedding(tower, **inputs)
    return pool(hidden_state(tower, layer, **inputs), pooling, mask)


def hidden_state(tower: nn.Module, layer: int, **inputs: Any) -> Tensor:
    """The hidden state after `layer` layers (-1: the last, normalised as the tower does)."""
    options = FORWARD_OPTIONS.get(getattr(tower.config, "model_type", ""), {})
    if layer == -1:
        return tower(**inputs, **options).last_hidden_state
    states = tower(**inputs, **options, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise VitrineError(
            f"layer is {layer}, but this tower has the hidden states 0 … {len(states) - 1}"
        )
    return states[layer]


def own_embedding(tower: nn.Module, **inputs: Any) -> Tensor:
    """The embedding that the model itself computes: its projection to the aligned space (CLIP, CLAP), or
    its pooler's output. VitrineError for a model without one."""
    output = tower(**inputs)
    for name in EMBEDDINGS:
        value = getattr(output, name, None)
        if value is not None:
            return value.flatten(1)
    raise VitrineError(
        f"pooling is embedding, but a {type(tower).__name__} has no embedding of its own; use mean, cls or "
        "last"
    )


def pool(hidden: Tensor, how: str = "mean", mask: Tensor | None = None) -> Tensor:
    """Pools hidden states to one vector per row.

    `hidden` (batch, tokens, width), or (batch, width, height, width) from convolutional towers, which is
    averaged over its places; `mask` (batch, tokens), 1 where a token counts. `how` as in
    sentence-transformers: mean, cls (the first token), last, max, sqrt_mean (the sum over the root of
    the number of tokens), weighted_mean (token n has weight n; SGPT, Muennighoff, 2022).
    Returns (batch, width).
    """
    if hidden.dim() == 4:
        return hidden.mean(dim=(2, 3))
    if how == "cls":
        return hidden[:, 0]
    if how == "last":
        last = -1 if mask is None else (mask.sum(dim=1).long() - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if how == "max":
        if mask is not None:
            hidden = hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min)
        return hidden.amax(dim=1)
    if mask is None and how == "mean":
        return hidden.mean(dim=1)
    weights = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
    if how == "weighted_mean":
        weights = weights * torch.arange(1, weights.shape[1] + 1, device=hidden.device)
    weights = weights.unsqueeze(-1)
    total = weights.sum(1).clamp(min=1)
    return (hidden * weights).sum(1) / (total.sqrt() if how == "sqrt_mean" else total)
